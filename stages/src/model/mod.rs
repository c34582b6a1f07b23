//! What a file's model is: its family, its sizes, its tensors. Everything is checked before a weight is mapped; nothing
//! here computes.

mod config;
mod error;
mod family;
mod rope;
mod tensors;

pub use config::ModelConfig;
pub use error::ModelError;
pub use family::Family;
pub use rope::{Rope, RopeStyle};

/// The embedding table.
pub(crate) const EMBEDDING: &str = "token_embd.weight";
/// The head's matrix, where it is not the embedding table.
const OUTPUT: &str = "output.weight";
/// The norm before the head.
pub(crate) const OUTPUT_NORM: &str = "output_norm.weight";
/// What each pair's frequency is divided by, where a model stretches its context in the way of Llama 3.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";
