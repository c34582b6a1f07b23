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
        Some(TokenMask::Bits(bytes)) => {
            let bits = bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
            let bits = bits.chain(std::iter::repeat(false));
            for ((out, logit), allowed) in out.iter_mut().zip(logits).zip(bits) {
                *out = if allowed { *logit } else { f32::NEG_INFINITY };
            }
        }
        None => out.copy_from_slice(logits),
    }
    for change in &rule.adjustments {
        if let Some(out) = out.get_mut(change.token as usize) {
            // A forbidden token stays forbidden: no change of negative infinity is another number.
            *out = change.apply(*out);
        }
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
}
