//! Description of a file's model: its family, sizes and tensors. Everything is checked before a weight is mapped. This
//! module computes nothing.

mod config;
mod error;
mod family;
mod pooling_type;
mod rope;
mod tensors;

pub use config::ModelConfig;
pub use error::UnsupportedModel;
pub use family::Family;
pub use pooling_type::PoolingType;
pub use rope::{Rope, RopeStyle};

/// Name of the embedding table.
pub(crate) const EMBEDDING: &str = "token_embd.weight";
/// Name of the output head's matrix (`lm_head`), in a model that does not use the embedding table for it.
const OUTPUT: &str = "output.weight";
/// Name of the norm before the output head.
pub(crate) const OUTPUT_NORM: &str = "output_norm.weight";
/// Name of the divisors of each pair's RoPE frequency, in a model that extends its context by Llama 3's method.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";
