//! Applies the rule of a position to logits: the adjustments first, then the mask.

use schema::frame::{PositionRule, TokenMask};

/// Writes `logits` under `rule` to `out`, which has the same length. Forbidden tokens become negative infinity. Tokens
/// beyond the vocabulary are ignored.
pub(super) fn apply(rule: &PositionRule, logits: &[f32], out: &mut [f32]) {
    match &rule.mask {
        Some(TokenMask::Only(tokens)) => {
            out.fill(f32::NEG_INFINITY);
            for token in tokens {
                if let (Some(out), Some(logit)) = (out.get_mut(*token as usize), logits.get(*token as usize)) {
                    *out = *logit;
                }
            }
        }
        Some(TokenMask::Without(tokens)) => {
            out.copy_from_slice(logits);
            for token in tokens {
                if let Some(out) = out.get_mut(*token as usize) {
                    *out = f32::NEG_INFINITY;
                }
            }
        }
        Some(TokenMask::Bits(bytes)) => copy_allowed(bytes, logits, out),
        None => out.copy_from_slice(logits),
    }
    for change in &rule.adjustments {
        if let Some(out) = out.get_mut(change.token as usize) {
            // A forbidden token stays forbidden: no change of negative infinity is another number.
            *out = change.apply(*out);
        }
    }
}

/// Sets the weights of the tokens that `mask` forbids to zero.
pub(super) fn forbid(mask: &TokenMask, weights: &mut [f32]) {
    match mask {
        TokenMask::Only(tokens) => {
            let (mut next, count) = (0, weights.len());
            for token in tokens.iter().map(|token| *token as usize).filter(|token| *token < count) {
                weights[next.min(token)..token].fill(0.0);
                next = token + 1;
            }
            weights[next..].fill(0.0);
        }
        TokenMask::Without(tokens) => {
            for token in tokens {
                if let Some(weight) = weights.get_mut(*token as usize) {
                    *weight = 0.0;
                }
            }
        }
        TokenMask::Bits(bytes) => {
            let bytes = bytes.iter().copied().chain(std::iter::repeat(0));
            for (weights, byte) in weights.chunks_mut(8).zip(bytes) {
                for (lane, weight) in weights.iter_mut().enumerate() {
                    *weight = if byte & (1 << lane) != 0 { *weight } else { 0.0 };
                }
            }
        }
    }
}

/// Copies the logits whose bits are 1. All others become negative infinity.
fn copy_allowed(bytes: &[u8], logits: &[f32], out: &mut [f32]) {
    let (groups, rest) = logits.as_chunks::<8>();
    let (out_groups, out_rest) = out.as_chunks_mut::<8>();
    let mut bytes = bytes.iter().copied().chain(std::iter::repeat(0));
    // Without a branch for each bit, so that the loop becomes vector instructions.
    for ((out, logits), byte) in out_groups.iter_mut().zip(groups).zip(&mut bytes) {
        for lane in 0..8 {
            out[lane] = if byte & (1 << lane) != 0 { logits[lane] } else { f32::NEG_INFINITY };
        }
    }
    let byte = bytes.next().unwrap_or(0);
    for (lane, (out, logit)) in out_rest.iter_mut().zip(rest).enumerate() {
        *out = if byte & (1 << lane) != 0 { *logit } else { f32::NEG_INFINITY };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::frame::Adjustment;

    const FORBIDDEN: f32 = f32::NEG_INFINITY;

    fn applied(adjustments: Vec<Adjustment>, mask: Option<TokenMask>) -> Vec<f32> {
        let mut out = vec![7.0; 4];
        apply(&PositionRule { adjustments, mask }, &[1.0, -1.0, 2.0, 0.5], &mut out);
        out
    }

    #[test]
    fn every_form_of_a_mask_forbids_the_same_tokens() {
        let expected = [FORBIDDEN, -1.0, FORBIDDEN, 0.5];
        assert_eq!(applied(Vec::new(), Some(TokenMask::Only(vec![1, 3, 9]))), expected);
        assert_eq!(applied(Vec::new(), Some(TokenMask::Without(vec![0, 2, 9]))), expected);
        assert_eq!(applied(Vec::new(), Some(TokenMask::Bits(vec![0b1111_1010]))), expected);
        assert_eq!(applied(Vec::new(), Some(TokenMask::Bits(Vec::new()))), [FORBIDDEN; 4]);
    }

    #[test]
    fn adjustments_change_their_tokens_only_and_allow_nothing_that_the_mask_forbids() {
        let changes = vec![
            Adjustment { bias: 100.0, ..Adjustment::none(0) },
            Adjustment { repetition: 2.0, ..Adjustment::none(1) },
            Adjustment { penalty: 0.5, ..Adjustment::none(3) },
            Adjustment::forbid(9),
        ];
        assert_eq!(applied(changes.clone(), None), [101.0, -2.0, 2.0, 0.0]);
        assert_eq!(applied(changes, Some(TokenMask::Without(vec![0]))), [FORBIDDEN, -2.0, 2.0, 0.0]);
    }

    #[test]
    fn every_bit_of_a_mask_counts_for_its_own_token() {
        // A whole group, a part of one, and a mask that ends before the vocabulary.
        let logits: Vec<f32> = (0..21).map(|token| token as f32).collect();
        for bytes in [vec![0b1010_0110, 0b0101_1001, 0b1111_0101], vec![0b1010_0110], vec![0xff; 4]] {
            let mut out = vec![7.0; 21];
            copy_allowed(&bytes, &logits, &mut out);
            let mask = TokenMask::Bits(bytes);
            for token in 0..21 {
                let expected = if mask.allows(token) { token as f32 } else { FORBIDDEN };
                assert_eq!(out[token as usize], expected, "token {token} of {mask:?}");
            }
        }
    }
}
