//! Qwen3-VL for text: Qwen3 whose positions have three parts (M-RoPE), which are equal in a text.

use super::{Family, qwen3};
use crate::model::error::UnsupportedModel;
use crate::model::keys::Keys;
use crate::model::spec::ModelSpec;

pub(super) const FAMILY: Family = Family { architecture: "qwen3vl", implements: &[], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.rope_sections()?;
    qwen3::read(keys)
}
