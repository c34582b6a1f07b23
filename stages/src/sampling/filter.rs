//! The filters that llama.cpp has beside those of `rank`: `top_n_sigma`, `typical_p` and `xtc`.

use super::rank::TokenCandidate;

/// Largest `xtc_threshold` with an effect: two tokens cannot both be more probable.
const XTC_THRESHOLD_MAX: f32 = 0.5;

/// Least weight that `top_n_sigma` keeps: that of a logit `n` standard deviations below the largest. Weights are
/// `e^((logit - largest) * sharpness)`. Logits of negative infinity do not count.
pub(super) fn least_by_sigma(logits: &[f32], n: f32, sharpness: f32) -> f32 {
    let finite = || logits.iter().copied().filter(|logit| logit.is_finite()).map(f64::from);
    let count = finite().count().max(1) as f64;
    let mean = finite().sum::<f64>() / count;
    let variance = finite().map(|logit| (logit - mean) * (logit - mean)).sum::<f64>() / count;
    (-f64::from(n) * variance.sqrt() * f64::from(sharpness)).exp() as f32
}

/// Keeps the candidates whose information (`-ln p`) is nearest to their entropy, until their probabilities add up to
/// `typical_p`. At least one stays.
pub(super) fn keep_typical(candidates: &mut Vec<TokenCandidate>, typical_p: f32) {
    let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
    let information = |candidate: &TokenCandidate| -(f64::from(candidate.weight) / total).ln();
    let share = |candidate: &TokenCandidate| f64::from(candidate.weight) / total;
    let entropy: f64 = candidates.iter().map(|candidate| share(candidate) * information(candidate)).sum();
    let distance = |candidate: &TokenCandidate| (information(candidate) - entropy).abs();
    candidates.sort_unstable_by(|a, b| distance(a).total_cmp(&distance(b)).then(a.token.cmp(&b.token)));
    let mut sum = 0.0;
    let enough = candidates.iter().position(|candidate| {
        sum += share(candidate);
        sum > f64::from(typical_p)
    });
    candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
}

/// Removes, of the candidates at least as probable as `threshold`, all but the least probable one.
pub(super) fn exclude_top(candidates: &mut Vec<TokenCandidate>, threshold: f32) {
    if threshold > XTC_THRESHOLD_MAX {
        return;
    }
    let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
    let is_top = |candidate: &TokenCandidate| f64::from(candidate.weight) >= f64::from(threshold) * total;
    let last = candidates.iter().filter(|candidate| is_top(candidate)).max_by(|a, b| a.rank(b)).copied();
    if let Some(last) = last {
        candidates.retain(|candidate| *candidate == last || !is_top(candidate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[f32]) -> Vec<TokenCandidate> {
        (0..).zip(weights).map(|(token, weight)| TokenCandidate { weight: *weight, token }).collect()
    }

    fn tokens(mut candidates: Vec<TokenCandidate>) -> Vec<u32> {
        candidates.sort_unstable_by_key(|candidate| candidate.token);
        candidates.iter().map(|candidate| candidate.token).collect()
    }

    #[test]
    fn sigma_counts_standard_deviations_below_the_largest() {
        // Mean 0, standard deviation 1.
        let least = least_by_sigma(&[1.0, -1.0, 1.0, -1.0, f32::NEG_INFINITY], 2.0, 0.5);
        assert!((least - (-1.0_f32).exp()).abs() < 1e-6, "{least}");
    }

    #[test]
    fn typical_keeps_the_candidates_of_expected_information() {
        // Entropy 0.94: the information of 0.4 (0.92) is nearest, then that of 0.5 (0.69), then that of 0.1 (2.3).
        let mut kept = candidates(&[1.0, 0.8, 0.2]);
        keep_typical(&mut kept, 0.3);
        assert_eq!(tokens(kept), [1]);
        let mut kept = candidates(&[1.0, 0.8, 0.2]);
        keep_typical(&mut kept, 0.6);
        assert_eq!(tokens(kept), [0, 1]);
        let mut kept = candidates(&[1.0]);
        keep_typical(&mut kept, 0.0);
        assert_eq!(tokens(kept), [0]);
    }

    #[test]
    fn xtc_keeps_the_least_probable_of_the_top_tokens_and_all_others() {
        let mut kept = candidates(&[1.0, 0.5, 0.3, 0.2]);
        exclude_top(&mut kept, 0.2);
        assert_eq!(tokens(kept), [1, 2, 3]);
        let mut kept = candidates(&[1.0, 0.5, 0.3, 0.2]);
        exclude_top(&mut kept, 0.14);
        assert_eq!(tokens(kept), [2, 3]);
        let mut kept = candidates(&[1.0, 0.1]);
        exclude_top(&mut kept, 0.5);
        assert_eq!(tokens(kept), [0, 1], "a single top token stays");
    }
}
