//! Qwen1.5-MoE and Qwen2-MoE: biases of queries, keys and values, and a gated network beside the experts.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{ExpertsSpec, FeedForward};
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family = Family { architecture: "qwen2moe", implements: &["expert_count"], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let attention = AttentionSpec { biases: Presence::Required, ..keys.attention()? };
    let experts = keys.required_experts()?;
    let experts = ExpertsSpec { shared: Some(keys.shared(4 * experts.width, true)?), ..experts };
    let layer = LayerSpec::new(Mixer::Attention(attention), FeedForward::Experts(experts), keys.norms()?);
    keys.uniform(keys.rope(RopeStyle::Halves, attention.key)?, layer)
}
