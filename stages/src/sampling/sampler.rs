//! The sampler, which chooses or scores a token and owns scratch for one vocabulary.

use schema::frame::{Alternative, PositionRule, Sampling, TokenMask};

use super::random::{Purpose, uniform};
use super::rank::{TokenCandidate, keep_top};
use super::{SampledToken, SamplingError, adjust, alternatives, filter};
use crate::cpu::Exponentials;

/// The result that is asked of the logits after one row.
#[derive(Debug, Clone, Copy)]
pub enum Readout<'a> {
    /// A token for `position` of the sequence.
    Choose {
        /// The position.
        position: u32,
        /// The method of drawing.
        sampling: &'a Sampling,
        /// The rule of the position, if it has one.
        rule: Option<&'a PositionRule>,
    },
    /// The score of a token.
    Score {
        /// The token.
        token: u32,
    },
}

/// Chooses and scores tokens. It owns its scratch, so that it allocates nothing but alternatives.
#[derive(Debug)]
pub struct Sampler {
    candidates: Vec<TokenCandidate>,
    weights: Vec<f32>,
    /// Logits under the rule of a position.
    adjusted: Vec<f32>,
    /// The likeliest tokens.
    best: Vec<u32>,
    exponentials: Exponentials,
}

/// Logits to choose from, and what is known of them.
#[derive(Debug, Clone, Copy)]
struct Choosable<'a> {
    logits: &'a [f32],
    /// The first token of the largest logit.
    likeliest: usize,
    /// Its logit.
    largest: f32,
    /// True if the sampler's weights are theirs at temperature 1.
    weighed: bool,
    /// The tokens that may be chosen, `likeliest` among them. `None` if the logits of all others are negative infinity.
    mask: Option<&'a TokenMask>,
}

// === impl Sampler ===

impl Sampler {
    /// A sampler for `vocabulary` tokens.
    pub fn new(vocabulary: usize) -> Self {
        Self {
            candidates: Vec::with_capacity(vocabulary),
            weights: vec![0.0; vocabulary],
            adjusted: vec![0.0; vocabulary],
            best: Vec::new(),
            exponentials: Exponentials::detect(),
        }
    }

    /// Size of the scratch for `vocabulary` tokens, in bytes.
    pub fn bytes(vocabulary: usize) -> u64 {
        (vocabulary * (size_of::<TokenCandidate>() + 2 * size_of::<f32>())) as u64
    }

    /// Reads a token and its score from `logits`, with the `count` likeliest ones beside it.
    ///
    /// # Errors
    /// [`SamplingError`] when there are no logits, a logit is NaN or positive infinity, or none is finite; when the
    /// rule forbids every token; when the token to score is not in the vocabulary.
    ///
    /// # Panics
    /// If there are more logits than the sampler was created for.
    pub fn read(&mut self, logits: &[f32], count: u32, readout: Readout<'_>) -> Result<SampledToken, SamplingError> {
        let (likeliest, largest) = self.exponentials.largest(logits).ok_or(SamplingError::Empty)?;
        let sum = self.exponentials.of(logits, largest, 1.0, &mut self.weights[..logits.len()]);
        if !sum.is_finite() {
            return Err(first_unusable(logits));
        }
        let logprob = |token: usize| (f64::from(logits[token]) - f64::from(largest) - sum.ln()) as f32;
        let all = Choosable { logits, likeliest, largest, weighed: true, mask: None };
        let token = match readout {
            Readout::Score { token } if (token as usize) < logits.len() => token as usize,
            Readout::Score { token } => return Err(SamplingError::Unknown { found: token, expected: logits.len() }),
            Readout::Choose { position, sampling, rule: None } => self.choose(all, sampling, position),
            // The largest of the allowed logits is the largest of all, so they need not be copied.
            Readout::Choose { position, sampling, rule: Some(PositionRule { adjustments, mask: Some(mask) }) }
                if adjustments.is_empty() && mask.allows(likeliest as u32) && sampling.top_n_sigma == 0.0 =>
            {
                self.choose(Choosable { mask: Some(mask), ..all }, sampling, position)
            }
            Readout::Choose { position, sampling, rule: Some(rule) } => {
                let mut adjusted = std::mem::take(&mut self.adjusted);
                let chosen = self.choose_under(rule, logits, &mut adjusted[..logits.len()], sampling, position);
                self.adjusted = adjusted;
                chosen?
            }
        };
        let mut sampled =
            SampledToken { token: token as u32, logprob: logprob(token), rank: 0, alternatives: Vec::new() };
        if count > 0 {
            sampled.rank = alternatives::rank(logits, token);
            alternatives::largest(logits, count as usize, &mut self.best);
            let alternative = |token: &u32| Alternative { token: *token, logprob: logprob(*token as usize) };
            sampled.alternatives = self.best.iter().map(alternative).collect();
        }
        Ok(sampled)
    }

    /// Chooses under the rule of the position.
    fn choose_under(
        &mut self,
        rule: &PositionRule,
        logits: &[f32],
        adjusted: &mut [f32],
        sampling: &Sampling,
        position: u32,
    ) -> Result<usize, SamplingError> {
        adjust::apply(rule, logits, adjusted);
        match self.exponentials.largest(adjusted) {
            Some((likeliest, largest)) if largest.is_finite() => {
                let adjusted = Choosable { logits: adjusted, likeliest, largest, weighed: false, mask: None };
                Ok(self.choose(adjusted, sampling, position))
            }
            _ => Err(SamplingError::NothingAllowed { position }),
        }
    }

    fn choose(&mut self, from: Choosable<'_>, sampling: &Sampling, position: u32) -> usize {
        let Choosable { logits, likeliest, largest, weighed, mask } = from;
        let sharpness = 1.0 / sampling.temperature;
        if !sharpness.is_finite() || sampling.top_k == 1 || sampling.top_p == 0.0 {
            return likeliest;
        }
        let weights = &mut self.weights[..logits.len()];
        if sampling.temperature != 1.0 || !weighed {
            self.exponentials.of(logits, largest, sharpness, weights);
        }
        if let Some(mask) = mask {
            adjust::forbid(mask, weights);
        }
        let random = uniform(sampling, position, Purpose::Draw);
        let all = (0..).zip(weights.iter()).map(|(token, weight)| TokenCandidate { weight: *weight, token });
        let excludes = sampling.xtc_probability > 0.0
            && uniform(sampling, position, Purpose::Xtc) < f64::from(sampling.xtc_probability);
        let has_other_filters = sampling.typical_p < 1.0 || sampling.top_n_sigma > 0.0 || excludes;
        if sampling.top_k == 0 && sampling.top_p >= 1.0 && !has_other_filters {
            let least = sampling.min_p;
            return draw(all.filter(|candidate| candidate.weight >= least), random).unwrap_or(likeliest);
        }
        self.candidates.clear();
        // A token of weight 0 is never drawn, so it need not be ranked.
        self.candidates.extend(all.filter(|candidate| candidate.weight > 0.0));
        if has_other_filters {
            self.filter(logits, sharpness, sampling, excludes);
        } else {
            let kept = keep_top(&mut self.candidates, sampling.top_k, sampling.top_p);
            self.candidates.truncate(kept);
            self.candidates.retain(|candidate| candidate.weight >= sampling.min_p);
        }
        self.candidates.sort_unstable_by_key(|candidate| candidate.token);
        draw(self.candidates.iter().copied(), random).unwrap_or(likeliest)
    }

    /// Keeps the candidates that all filters leave, at least one.
    fn filter(&mut self, logits: &[f32], sharpness: f32, sampling: &Sampling, excludes: bool) {
        let candidates = &mut self.candidates;
        if sampling.top_n_sigma > 0.0 {
            let least = filter::least_by_sigma(logits, sampling.top_n_sigma, sharpness);
            candidates.retain(|candidate| candidate.weight >= least);
        }
        let kept = keep_top(candidates, sampling.top_k, 1.0);
        candidates.truncate(kept);
        if sampling.typical_p < 1.0 {
            filter::keep_typical(candidates, sampling.typical_p);
        }
        let kept = keep_top(candidates, 0, sampling.top_p);
        candidates.truncate(kept);
        let largest = candidates.iter().fold(0.0_f32, |largest, candidate| largest.max(candidate.weight));
        candidates.retain(|candidate| candidate.weight >= sampling.min_p * largest);
        if excludes {
            filter::exclude_top(candidates, sampling.xtc_threshold);
        }
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

#[cfg(test)]
mod tests;
