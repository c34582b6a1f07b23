//! Llama and models with the same arithmetic: Mistral, SmolLM2 and many others.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::FeedForward;
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family = Family { architecture: "llama", implements: &[], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let attention = AttentionSpec { window: keys.window()?, biases: Presence::Optional, ..keys.attention()? };
    let layer = LayerSpec {
        mixer: Mixer::Attention(attention),
        feed_forward: FeedForward::Dense(keys.dense()?),
        norms: keys.norms()?,
    };
    // Converters reorder the rows of Q and K for this style.
    keys.uniform(keys.rope(RopeStyle::Adjacent, attention.key)?, layer)
}
