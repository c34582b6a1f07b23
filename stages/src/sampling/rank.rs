//! Selects the most probable tokens, as limited by `top_k` and `top_p`. Ranks as few tokens as possible.

use std::cmp::Ordering;

/// A token that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TokenCandidate {
    /// Its probability relative to the most probable token's, after temperature.
    pub(super) weight: f32,
    /// Its id.
    pub(super) token: u32,
}

/// Number of tokens ranked at first: nearly always enough for `top_p`, and fast to sort.
const RANKED_FIRST: usize = 256;
/// Factor by which the number grows each time it was not enough.
const RANKED_GROWTH: usize = 8;

// === impl TokenCandidate ===

impl TokenCandidate {
    /// The order of rank: the more probable token first, and of equal ones the lower id.
    pub(super) fn rank(&self, other: &Self) -> Ordering {
        other.weight.total_cmp(&self.weight).then(self.token.cmp(&other.token))
    }
}

/// Moves the candidates that `top_k` and `top_p` leave to the front and returns their number, at least 1.
///
/// `candidates` has at least one element, in any order.
pub(super) fn keep_top(candidates: &mut [TokenCandidate], top_k: u32, top_p: f32) -> usize {
    let all = candidates.len();
    let most = if top_k == 0 { all } else { all.min(top_k as usize) };
    if most < all {
        candidates.select_nth_unstable_by(most - 1, TokenCandidate::rank);
    }
    let candidates = &mut candidates[..most];
    if top_p >= 1.0 {
        return most;
    }
    let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
    let target = total * f64::from(top_p);
    let (mut ranked, mut sum, mut count) = (0, 0.0, RANKED_FIRST);
    while ranked < most {
        let rest = &mut candidates[ranked..];
        let next = count.min(rest.len());
        if next < rest.len() {
            rest.select_nth_unstable_by(next - 1, TokenCandidate::rank);
        }
        rest[..next].sort_unstable_by(TokenCandidate::rank);
        for candidate in &rest[..next] {
            ranked += 1;
            sum += f64::from(candidate.weight);
            if sum >= target {
                return ranked;
            }
        }
        count *= RANKED_GROWTH;
    }
    most
}
