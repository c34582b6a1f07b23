//! The part of a model that a tensor belongs to, determined by its name.

use std::fmt;

use crate::checkpoint::{Header, TensorInfo};

/// The part of a model that a tensor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorRole {
    /// Turns tokens into the first layer's input. The first stage has it.
    Embedding,
    /// A layer. The stage with that layer has it.
    Layer(u32),
    /// Turns the last layer's output into logits. The last stage has it.
    OutputHead,
    /// Read by every layer, such as RoPE factors. It is small, and every stage has it.
    Shared,
}

/// Name of the embedding table. It is also the output head's matrix in a model that ties the two.
pub(super) const EMBEDDING: &str = "token_embd.weight";

/// Name of the output head's matrix, in a model that does not tie it to the embedding.
pub(super) const OUTPUT: &str = "output.weight";

/// Name of the norm before the output head. A model without it makes hidden states alone, and has no output head.
const OUTPUT_NORM: &str = "output_norm.weight";

/// The output head's matrix: its own, or the embedding table in a model that ties the two. `None` in a model that makes
/// hidden states alone.
pub(super) fn output_head(header: &Header) -> Option<&TensorInfo> {
    let tied = || header.tensor(OUTPUT_NORM).and_then(|_| header.tensor(EMBEDDING));
    header.tensor(OUTPUT).or_else(tied)
}

// === impl TensorRole ===

impl TensorRole {
    /// The role of the tensor `name`.
    pub fn of(name: &str) -> Self {
        if let Some(layer) = layer_of(name) {
            Self::Layer(layer)
        } else if ["token_embd", "position_embd", "token_types"].iter().any(|start| name.starts_with(start)) {
            Self::Embedding
        } else if name.starts_with("output") {
            Self::OutputHead
        } else {
            Self::Shared
        }
    }
}

/// The number in `blk.<number>.…`.
fn layer_of(name: &str) -> Option<u32> {
    let (number, _) = name.strip_prefix("blk.")?.split_once('.')?;
    // Only the canonical spelling: "blk.01." would be a second name of layer 1.
    number.parse().ok().filter(|layer: &u32| layer.to_string() == number)
}

impl fmt::Display for TensorRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding => f.write_str("the embedding"),
            Self::Layer(layer) => write!(f, "layer {layer}"),
            Self::OutputHead => f.write_str("the output head"),
            Self::Shared => f.write_str("every stage"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensors_role_follows_from_its_name() {
        assert_eq!(TensorRole::of("blk.12.attn_q.weight"), TensorRole::Layer(12));
        assert_eq!(TensorRole::of("token_embd.weight"), TensorRole::Embedding);
        assert_eq!(TensorRole::of("output_norm.weight"), TensorRole::OutputHead);
        assert_eq!(TensorRole::of("output.weight"), TensorRole::OutputHead);
        assert_eq!(TensorRole::of("rope_freqs.weight"), TensorRole::Shared);
    }

    #[test]
    fn a_layer_number_has_one_spelling() {
        for name in ["blk.01.x", "blk.+1.x", "blk..x", "blk.1", "blk.4294967296.x"] {
            assert_eq!(TensorRole::of(name), TensorRole::Shared, "{name}");
        }
    }
}
