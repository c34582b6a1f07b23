//! The model families and the differences in their arithmetic.

use std::fmt;

use super::error::UnsupportedModel;
use super::rope::RopeStyle;

/// A family of models. Its name is the architecture in GGUF files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama and models with the same arithmetic: Mistral, SmolLM2 and many others.
    Llama,
    /// Qwen2 and Qwen2.5: biases on Q, K and V.
    Qwen2,
    /// Qwen3: a norm on each head of Q and K.
    Qwen3,
}

// === impl Family ===

impl Family {
    /// All families.
    pub const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Qwen3];

    /// The family of a GGUF architecture.
    ///
    /// # Errors
    /// [`UnsupportedModel::Architecture`] for an architecture that is not implemented.
    pub fn of(architecture: &str) -> Result<Self, UnsupportedModel> {
        let known = Self::ALL.into_iter().find(|family| family.architecture() == architecture);
        known.ok_or_else(|| UnsupportedModel::Architecture {
            found: architecture.chars().take(64).collect(),
            expected: Self::ALL.map(Self::architecture).join(", "),
        })
    }

    /// The family's architecture name in GGUF files.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The layout of the dimension pairs that RoPE rotates.
    pub fn rope_style(self) -> RopeStyle {
        match self {
            Self::Llama => RopeStyle::Adjacent,
            Self::Qwen2 | Self::Qwen3 => RopeStyle::Halves,
        }
    }

    /// Biases of Q, K and V: `Some(true)` if they are required, `Some(false)` if they are refused, `None` if a file may
    /// have them or not.
    pub fn biases(self) -> Option<bool> {
        match self {
            Self::Llama => None,
            Self::Qwen2 => Some(true),
            Self::Qwen3 => Some(false),
        }
    }

    /// True if each head of Q and K has a norm.
    pub fn head_norms(self) -> bool {
        self == Self::Qwen3
    }

    /// True if all layers use the same sliding window, in a file that names one.
    pub fn has_sliding_window(self) -> bool {
        self == Self::Llama
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.architecture())
    }
}
