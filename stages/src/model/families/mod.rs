//! The model families, one file each: metadata in, a [`ModelSpec`] out, and the names of tensors that are not the usual
//! ones. A new family is a file and a line in [`Family::ALL`].

mod bert;
mod deepseek2;
mod ernie4_5_moe;
mod gemma2;
mod gemma3;
mod gemma4;
mod glm4;
mod glm4moe;
mod gpt_oss;
mod granite;
mod granitemoe;
mod hunyuan_moe;
mod lfm2;
mod llama;
mod llama4;
mod minimax_m2;
mod mistral3;
mod nomic_bert;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen2moe;
mod qwen2vl;
mod qwen3;
mod qwen3moe;
mod qwen3vl;
mod qwen3vlmoe;
mod smollm3;

use std::fmt;

use super::error::UnsupportedModel;
use super::keys::Keys;
use super::layer_role::LayerRole;
use super::spec::ModelSpec;
use crate::checkpoint::Header;

/// A family of models: how its files are read.
pub struct Family {
    /// Its name in GGUF files (`general.architecture`).
    pub architecture: &'static str,
    /// Keys that `read` turns into arithmetic, of those that are refused otherwise.
    pub(super) implements: &'static [&'static str],
    /// Tensors whose names differ from the usual ones.
    names: &'static [(LayerRole, &'static str)],
    read: fn(&Keys<'_>) -> Result<ModelSpec, UnsupportedModel>,
}

/// Reads and checks the metadata of a model file.
///
/// # Errors
/// As [`ModelSpec::read`].
pub(super) fn read(header: &Header) -> Result<ModelSpec, UnsupportedModel> {
    let family = Family::of(header.metadata.str("general.architecture")?)?;
    let keys = Keys::new(header, family);
    keys.refuse_unimplemented()?;
    (family.read)(&keys)
}

// === impl Family ===

impl Family {
    /// All families.
    pub const ALL: [&'static Self; 28] = [
        &llama::FAMILY,
        &qwen2::FAMILY,
        &qwen3::FAMILY,
        &qwen2moe::FAMILY,
        &qwen3moe::FAMILY,
        &deepseek2::FAMILY,
        &gemma2::FAMILY,
        &gemma3::FAMILY,
        &glm4moe::FAMILY,
        &gpt_oss::FAMILY,
        &granite::FAMILY,
        &minimax_m2::FAMILY,
        &mistral3::FAMILY,
        &olmo2::FAMILY,
        &phi3::FAMILY,
        &smollm3::FAMILY,
        &gemma4::FAMILY,
        &glm4::FAMILY,
        &granitemoe::FAMILY,
        &ernie4_5_moe::FAMILY,
        &hunyuan_moe::FAMILY,
        &llama4::FAMILY,
        &qwen2vl::FAMILY,
        &qwen3vl::FAMILY,
        &qwen3vlmoe::FAMILY,
        &bert::FAMILY,
        &nomic_bert::FAMILY,
        &lfm2::FAMILY,
    ];

    /// The family of a GGUF architecture.
    ///
    /// # Errors
    /// [`UnsupportedModel::Architecture`] for an architecture that is not implemented.
    pub fn of(architecture: &str) -> Result<&'static Self, UnsupportedModel> {
        let known = Self::ALL.into_iter().find(|family| family.architecture == architecture);
        known.ok_or_else(|| UnsupportedModel::Architecture {
            found: architecture.chars().take(64).collect(),
            expected: Self::ALL.map(|family| family.architecture).join(", "),
        })
    }

    /// The name of a role's tensor in a layer of this family, after `blk.<layer>.`.
    pub fn suffix(&self, role: LayerRole) -> &'static str {
        let own = self.names.iter().find(|(named, _)| *named == role);
        own.map_or_else(|| role.suffix(), |(_, suffix)| suffix)
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.architecture == other.architecture
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Family({})", self.architecture)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.architecture)
    }
}
