//! The way from the hidden states of a prompt's tokens to its one embedding. Every way is the mean over a range of
//! tokens, so the core knows ranges only.

use std::ops::Range;

/// The tokens of a prompt whose hidden states make its embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// All of them: the embedding is the mean.
    Mean,
    /// The first one, which classifiers call CLS.
    Cls,
    /// The last one, which alone has seen the whole prompt where attention is causal.
    Last,
}

// === impl Pooling ===

impl Pooling {
    /// The positions of these tokens in a prompt of `prompt_tokens` tokens, at least one.
    pub fn positions(self, prompt_tokens: u32) -> Range<u32> {
        match self {
            Self::Mean => 0..prompt_tokens,
            Self::Cls => 0..1,
            Self::Last => prompt_tokens.saturating_sub(1)..prompt_tokens,
        }
    }
}
