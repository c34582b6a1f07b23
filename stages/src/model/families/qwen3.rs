//! Qwen3: a norm on each head of queries and keys.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::FeedForward;
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer, QueryKeyNorm};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family = Family { architecture: "qwen3", implements: &[], names: &[], read };

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let attention = AttentionSpec { query_key_norm: QueryKeyNorm::Head, ..keys.attention()? };
    let layer = LayerSpec::new(Mixer::Attention(attention), FeedForward::Dense(keys.dense()?), keys.norms()?);
    keys.uniform(keys.rope(RopeStyle::Halves, attention.key)?, layer)
}
