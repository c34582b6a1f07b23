//! Chooses a token from logits, or scores one: a pure function of the logits, the token rule and the position.
//!
//! Scores are those of the logits as they came. To choose, the position's adjustments and its mask are applied first.
//! Then the order is that of the OpenAI API's own servers and of vLLM: temperature, `top_k`, `top_p` over the tokens
//! that `top_k` leaves (their probabilities scaled to sum to one), `min_p` relative to the most probable token. The
//! filters that only llama.cpp has stand where they stand there: `top_n_sigma` before `top_k`, `typical_p` after it,
//! and `xtc` at the end. Tokens of equal probability rank by id, the lower first. Temperature 0 chooses the first token
//! in rank. One of the remaining tokens is drawn by inverting the cumulative distribution in order of id, with a random
//! number that depends only on seed, choice and position.

mod adjust;
mod alternatives;
mod filter;
mod philox;
mod random;
mod rank;
mod sampler;

pub use sampler::{Readout, Sampler};

use schema::frame::Alternative;

/// Errors of choosing or scoring a token.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// The logits contain NaN or positive infinity, or all are negative infinity.
    #[error("logit {token} is {found}: expected numbers, of which the largest is finite")]
    Logit {
        /// The first such token.
        token: usize,
        /// Its logit.
        found: f32,
    },
    /// There are no logits.
    #[error("there are no logits: expected at least one")]
    Empty,
    /// The rule forbids every token.
    #[error("the rule of position {position} forbids every token: expected at least one that may be chosen")]
    NothingAllowed {
        /// The position.
        position: u32,
    },
    /// The token to be scored is not in the vocabulary.
    #[error("the token to score is {found}: expected less than the vocabulary's {expected}")]
    Unknown {
        /// The token.
        found: u32,
        /// Number of tokens in the vocabulary.
        expected: usize,
    },
}

/// A token that was chosen or scored.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    /// Its id.
    pub token: u32,
    /// Natural logarithm of its probability under the logits as they came.
    pub logprob: f32,
    /// Its rank by probability, from 1. 0 if no alternatives are asked for.
    pub rank: u32,
    /// The likeliest tokens, the likeliest first.
    pub alternatives: Vec<Alternative>,
}

// === impl SamplingError ===

impl SamplingError {
    /// True if the rule is at fault, not the device.
    pub(crate) fn is_about_rule(&self) -> bool {
        matches!(self, Self::NothingAllowed { .. } | Self::Unknown { .. })
    }
}
