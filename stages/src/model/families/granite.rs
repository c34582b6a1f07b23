//! Granite 3: llama with factors of embeddings, scores, what layers add, and logits. `granitemoe` has the same factors.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::FeedForward;
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::RopeStyle;
use crate::model::spec::{EmbeddingSpec, HeadSpec, LayerSpec, ModelSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family = Family { architecture: "granite", implements: &FACTORS, names: &[], read };

/// The keys of its factors.
const FACTORS: [&str; 4] = ["embedding_scale", "attention.scale", "residual_scale", "logit_scale"];

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    read_with(keys, FeedForward::Dense(keys.dense()?))
}

/// A model with Granite's factors whose layers have this network.
pub(super) fn read_with(keys: &Keys<'_>, feed_forward: FeedForward) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let plain = keys.attention()?;
    let score_divisor = keys.positive("attention.scale", Some(plain.score_divisor.recip()))?.recip();
    let attention = AttentionSpec { score_divisor, biases: Presence::Optional, ..plain };
    let layer = LayerSpec {
        residual_scale: keys.positive("residual_scale", Some(1.0))?,
        ..LayerSpec::new(Mixer::Attention(attention), feed_forward, keys.norms()?)
    };
    let model = keys.uniform(keys.rope(RopeStyle::Adjacent, attention.key)?, layer)?;
    let embedding = EmbeddingSpec { scale: keys.positive("embedding_scale", Some(1.0))?, ..model.embedding };
    // The file names the divisor.
    let head = HeadSpec { scale: keys.positive("logit_scale", Some(1.0))?.recip(), ..keys.head()? };
    Ok(ModelSpec { embedding, head: Some(head), ..model })
}
