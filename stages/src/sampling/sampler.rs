//! The sampler, which chooses a token from logits and owns scratch for one vocabulary.

use schema::frame::Sampling;

use super::philox::philox;
use super::rank::{TokenCandidate, keep_top};
use super::{SampledToken, SamplingError};
use crate::cpu::Exponentials;

/// Chooses tokens. It owns its scratch so that choosing allocates nothing.
#[derive(Debug)]
pub struct Sampler {
    candidates: Vec<TokenCandidate>,
    weights: Vec<f32>,
    exponentials: Exponentials,
}

// === impl Sampler ===

impl Sampler {
    /// A sampler for `vocabulary` tokens.
    pub fn new(vocabulary: usize) -> Self {
        Self {
            candidates: Vec::with_capacity(vocabulary),
            weights: vec![0.0; vocabulary],
            exponentials: Exponentials::detect(),
        }
    }

    /// Size of the scratch for `vocabulary` tokens, in bytes.
    pub fn bytes(vocabulary: usize) -> u64 {
        (vocabulary * (size_of::<TokenCandidate>() + size_of::<f32>())) as u64
    }

    /// Chooses the token at `position` of a sequence.
    ///
    /// # Errors
    /// [`SamplingError`] when there are no logits, a logit is NaN or positive infinity, or none is finite.
    ///
    /// # Panics
    /// If there are more logits than the sampler was created for.
    pub fn choose(
        &mut self,
        logits: &[f32],
        sampling: &Sampling,
        position: u32,
    ) -> Result<SampledToken, SamplingError> {
        let (likeliest, largest) = self.exponentials.largest(logits).ok_or(SamplingError::Empty)?;
        let weights = &mut self.weights[..logits.len()];
        let sum = self.exponentials.of(logits, largest, 1.0, weights);
        if !sum.is_finite() {
            return Err(first_unusable(logits));
        }
        let sampled = |token: usize| SampledToken {
            token: token as u32,
            logprob: (f64::from(logits[token]) - f64::from(largest) - sum.ln()) as f32,
        };
        let sharpness = 1.0 / sampling.temperature;
        if !sharpness.is_finite() || sampling.top_k == 1 || sampling.top_p == 0.0 {
            return Ok(sampled(likeliest));
        }
        if sampling.temperature != 1.0 {
            self.exponentials.of(logits, largest, sharpness, weights);
        }
        let random = uniform(sampling, position);
        if sampling.top_k == 0 && sampling.top_p >= 1.0 {
            let least = sampling.min_p;
            let kept = (0..).zip(weights.iter()).filter(|(_, weight)| **weight >= least);
            let kept = kept.map(|(token, weight)| TokenCandidate { weight: *weight, token });
            return Ok(sampled(draw(kept, random).unwrap_or(likeliest)));
        }
        self.candidates.clear();
        let all = (0..).zip(weights.iter()).map(|(token, weight)| TokenCandidate { weight: *weight, token });
        // A token of weight 0 is never drawn, so it need not be ranked.
        self.candidates.extend(all.filter(|candidate| candidate.weight > 0.0));
        let kept = keep_top(&mut self.candidates, sampling.top_k, sampling.top_p);
        let kept = &mut self.candidates[..kept];
        kept.sort_unstable_by_key(|candidate| candidate.token);
        let kept = kept.iter().copied().filter(|candidate| candidate.weight >= sampling.min_p);
        Ok(sampled(draw(kept, random).unwrap_or(likeliest)))
    }
}

/// The error for the first logit that makes the sum of exponentials unusable.
fn first_unusable(logits: &[f32]) -> SamplingError {
    let unusable = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
    // If there is none, all are negative infinity.
    let token = logits.iter().position(unusable).unwrap_or(0);
    SamplingError::Logit { token, found: logits[token] }
}

/// The token at which the running sum of weights passes `random` (in 0..1) times their sum.
fn draw(candidates: impl Iterator<Item = TokenCandidate> + Clone, random: f64) -> Option<usize> {
    let sum: f64 = candidates.clone().map(|candidate| f64::from(candidate.weight)).sum();
    let (mut left, mut last) = (random * sum, None);
    for candidate in candidates {
        let weight = f64::from(candidate.weight);
        last = Some(candidate.token as usize);
        if left < weight {
            break;
        }
        left -= weight;
    }
    last
}

/// A number in 0..1 with 53 random bits, from the seed, the choice and the position.
fn uniform(sampling: &Sampling, position: u32) -> f64 {
    let key = [sampling.seed as u32, (sampling.seed >> 32) as u32];
    let words = philox([position, sampling.choice, 0, 0], key);
    let bits = (u64::from(words[0]) << 32 | u64::from(words[1])) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
