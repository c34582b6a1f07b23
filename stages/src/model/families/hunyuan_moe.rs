//! Hunyuan with experts: a norm on each head of queries and keys after their rotation, experts whose weights sum to
//! one, and a network beside them.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{ExpertsSpec, FeedForward, Routing};
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer, QueryKeyNorm};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family =
    Family { architecture: "hunyuan-moe", implements: &["expert_count"], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let attention = AttentionSpec { query_key_norm: QueryKeyNorm::Head, norm_after_rope: true, ..keys.attention()? };
    let experts = keys.required_experts()?;
    let routing = Routing { normalise: true, ..experts.routing };
    let shared = Some(keys.shared(keys.dense()?.width, false)?);
    let feed_forward = FeedForward::Experts(ExpertsSpec { routing, shared, ..experts });
    let layer = LayerSpec::new(Mixer::Attention(attention), feed_forward, keys.norms()?);
    keys.uniform(keys.rope(RopeStyle::Halves, attention.key)?, layer)
}
