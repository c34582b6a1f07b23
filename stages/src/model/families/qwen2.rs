//! Qwen2 and Qwen2.5: biases of queries, keys and values.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::FeedForward;
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family = Family { architecture: "qwen2", implements: &[], names: &[], read };

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let attention = AttentionSpec { biases: Presence::Required, ..keys.attention()? };
    let layer = LayerSpec::new(Mixer::Attention(attention), FeedForward::Dense(keys.dense()?), keys.norms()?);
    keys.uniform(keys.rope(RopeStyle::Halves, attention.key)?, layer)
}
