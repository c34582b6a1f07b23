//! Qwen2-VL and Qwen2.5-VL for text: Qwen2 whose positions have three parts (M-RoPE), which are equal in a text.

use super::{Family, qwen2};
use crate::model::error::UnsupportedModel;
use crate::model::keys::Keys;
use crate::model::spec::ModelSpec;

pub(super) const FAMILY: Family = Family { architecture: "qwen2vl", implements: &[], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.rope_sections()?;
    qwen2::read(keys)
}
