//! The part of a model that a tensor belongs to, determined by its name.

use std::fmt;

/// The part of a model that a tensor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Turns tokens into the first layer's input. The first stage has it.
    Embedding,
    /// A layer. The stage with that layer has it.
    Layer(u32),
    /// Turns the last layer's output into logits. The last stage has it.
    Head,
    /// Read by every layer, such as RoPE factors. It is small, and every stage has it.
    Everywhere,
}

/// Name of the embedding table. It is also the output head's matrix in a model that ties the two.
pub(super) const EMBEDDING: &str = "token_embd.weight";

/// Name of the output head's matrix, in a model that does not tie it to the embedding.
pub(super) const OUTPUT: &str = "output.weight";

// === impl Place ===

impl Place {
    /// The place of the tensor `name`.
    pub fn of(name: &str) -> Self {
        if let Some(layer) = layer_of(name) {
            Self::Layer(layer)
        } else if ["token_embd", "position_embd", "token_types"].iter().any(|start| name.starts_with(start)) {
            Self::Embedding
        } else if name.starts_with("output") {
            Self::Head
        } else {
            Self::Everywhere
        }
    }
}

/// The number in `blk.<number>.…`.
fn layer_of(name: &str) -> Option<u32> {
    let (number, _) = name.strip_prefix("blk.")?.split_once('.')?;
    // Only the canonical spelling: "blk.01." would be a second name of layer 1.
    number.parse().ok().filter(|layer: &u32| layer.to_string() == number)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding => f.write_str("the embedding"),
            Self::Layer(layer) => write!(f, "layer {layer}"),
            Self::Head => f.write_str("the head"),
            Self::Everywhere => f.write_str("every stage"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_is_placed_by_its_name() {
        assert_eq!(Place::of("blk.12.attn_q.weight"), Place::Layer(12));
        assert_eq!(Place::of("token_embd.weight"), Place::Embedding);
        assert_eq!(Place::of("output_norm.weight"), Place::Head);
        assert_eq!(Place::of("output.weight"), Place::Head);
        assert_eq!(Place::of("rope_freqs.weight"), Place::Everywhere);
    }

    #[test]
    fn a_layer_number_has_one_spelling() {
        for name in ["blk.01.x", "blk.+1.x", "blk..x", "blk.1", "blk.4294967296.x"] {
            assert_eq!(Place::of(name), Place::Everywhere, "{name}");
        }
    }
}
