//! Llama and models with the same arithmetic: Mistral, SmolLM2 and many others; Mixtral with its experts, whose weights
//! sum to one.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{ExpertsSpec, FeedForward, Routing};
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family = Family { architecture: "llama", implements: &["expert_count"], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let attention = AttentionSpec { window: keys.window()?, biases: Presence::Optional, ..keys.attention()? };
    let feed_forward = match keys.experts()? {
        None => FeedForward::Dense(keys.dense()?),
        Some(experts) => {
            let routing = Routing { normalise: true, ..experts.routing };
            FeedForward::Experts(ExpertsSpec { routing, ..experts })
        }
    };
    let layer = LayerSpec::new(Mixer::Attention(attention), feed_forward, keys.norms()?);
    // Converters reorder the rows of Q and K for this style.
    keys.uniform(keys.rope(RopeStyle::Adjacent, attention.key)?, layer)
}
