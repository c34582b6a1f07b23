//! Qwen3-VL with experts for text: Qwen3-MoE whose positions have three parts (M-RoPE), which are equal in a text.

use super::{Family, qwen3moe};
use crate::model::error::UnsupportedModel;
use crate::model::keys::Keys;
use crate::model::spec::ModelSpec;

pub(super) const FAMILY: Family =
    Family { architecture: "qwen3vlmoe", implements: &["expert_count"], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.rope_sections()?;
    qwen3moe::read(keys)
}
