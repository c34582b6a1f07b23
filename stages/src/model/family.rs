//! The model families, and where their arithmetic differs.

use std::fmt;

use super::error::ModelError;
use super::rope::RopeStyle;

/// A family of models, named as GGUF files name their architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama and what shares its arithmetic: Mistral, SmolLM2 and many others.
    Llama,
    /// Qwen2 and Qwen2.5: biases on Q, K and V.
    Qwen2,
    /// Qwen3: a norm on each head of Q and K.
    Qwen3,
}

// === impl Family ===

impl Family {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Qwen3];

    /// The family of an architecture.
    ///
    /// # Errors
    /// [`ModelError::Architecture`] for one that is not implemented.
    pub fn of(architecture: &str) -> Result<Self, ModelError> {
        let known = Self::ALL.into_iter().find(|family| family.architecture() == architecture);
        known.ok_or_else(|| ModelError::Architecture {
            found: architecture.chars().take(64).collect(),
            expected: Self::ALL.map(Self::architecture).join(", "),
        })
    }

    /// What files call it.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// Which dimensions of a head turn together.
    pub fn rope_style(self) -> RopeStyle {
        match self {
            Self::Llama => RopeStyle::Adjacent,
            Self::Qwen2 | Self::Qwen3 => RopeStyle::Halves,
        }
    }

    /// Whether Q, K and V may have biases: `Some(true)` where they must, `None` where files differ.
    pub fn biases(self) -> Option<bool> {
        match self {
            Self::Llama => None,
            Self::Qwen2 => Some(true),
            Self::Qwen3 => Some(false),
        }
    }

    /// Whether each head of Q and K has a norm.
    pub fn head_norms(self) -> bool {
        self == Self::Qwen3
    }

    /// Whether all its layers look through the same sliding window, where the file names one.
    pub fn windows(self) -> bool {
        self == Self::Llama
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.architecture())
    }
}
