//! Chooses a token from logits: a pure function of the logits, the sampling values, the choice and the position.
//!
//! The order is that of the OpenAI API's own servers and of vLLM: temperature first, then `top_k`, then `top_p` over
//! the tokens that `top_k` leaves (their probabilities scaled to sum to one), then `min_p` relative to the most
//! probable token. Tokens of equal probability rank by id, the lower first. The first token in rank always stays, and
//! temperature 0 chooses it. One of the remaining tokens is drawn by inverting the cumulative distribution in order of
//! id, with a random number that depends only on seed, choice and position.

mod philox;
mod rank;
mod sampler;

use schema::frame::Sampling;

pub use sampler::Sampler;

/// Errors of choosing a token.
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
}

/// A chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampledToken {
    /// Its id.
    pub token: u32,
    /// Natural logarithm of its probability under the logits as they came, before temperature and filters.
    pub logprob: f32,
}

/// Checks sampling values that come from outside this process. The error is the name and the value of the first wrong
/// field.
pub fn check(sampling: &Sampling) -> Result<(), (&'static str, f32)> {
    let Sampling { temperature, top_p, min_p, .. } = *sampling;
    if !(temperature.is_finite() && temperature >= 0.0) {
        Err(("temperature", temperature))
    } else if !(0.0..=1.0).contains(&top_p) {
        Err(("top_p", top_p))
    } else if !(0.0..=1.0).contains(&min_p) {
        Err(("min_p", min_p))
    } else {
        Ok(())
    }
}
