//! Qwen3-MoE: a norm on each head of queries and keys, and experts whose weights sum to one.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{ExpertsSpec, FeedForward, Routing};
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer, QueryKeyNorm};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family = Family { architecture: "qwen3moe", implements: &["expert_count"], names: &[], read };

pub(super) fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let attention = AttentionSpec { query_key_norm: QueryKeyNorm::Head, ..keys.attention()? };
    let experts = keys.required_experts()?;
    let experts = ExpertsSpec { routing: Routing { normalise: true, ..experts.routing }, ..experts };
    let layer = LayerSpec::new(Mixer::Attention(attention), FeedForward::Experts(experts), keys.norms()?);
    keys.uniform(keys.rope(RopeStyle::Halves, attention.key)?, layer)
}
