//! The random numbers of a position. They depend on seed, choice and position only.

use schema::frame::Sampling;

use super::philox::philox;

/// The purpose of a random number. Each purpose has numbers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Draws the token.
    Draw = 0,
    /// Decides if `xtc` removes tokens.
    Xtc = 1,
}

/// A number in 0..1 with 53 random bits.
pub(super) fn uniform(sampling: &Sampling, position: u32, purpose: Purpose) -> f64 {
    let key = [sampling.seed as u32, (sampling.seed >> 32) as u32];
    let words = philox([position, sampling.choice, purpose as u32, 0], key);
    let bits = (u64::from(words[0]) << 32 | u64::from(words[1])) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}
