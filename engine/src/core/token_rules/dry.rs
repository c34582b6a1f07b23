//! The penalty "don't repeat yourself": it finds passages that the next token would repeat at greater length.

use std::collections::BTreeMap;

use crate::generate::Dry;

/// Largest penalty: far above the spread of any model's logits.
const PENALTY_MAX: f32 = 1e4;

/// The penalty of each token that would make the repetition of a passage longer than allowed.
///
/// The text is compared with itself from its end: `same[i]` is the number of tokens that are equal before the end and
/// before the place `i` tokens earlier. The Z algorithm finds all of them in linear time.
pub(super) fn penalties(dry: &Dry, text: &[u32]) -> BTreeMap<u32, f32> {
    let recent = &text[text.len().saturating_sub(dry.last_tokens as usize)..];
    let backwards: Vec<u32> = recent.iter().rev().copied().collect();
    // A passage does not reach across a token that ends passages.
    let limit = backwards.iter().position(|token| dry.breakers.binary_search(token).is_ok());
    let limit = limit.unwrap_or(backwards.len());
    let mut longest: BTreeMap<u32, usize> = BTreeMap::new();
    for (earlier, same) in common_prefixes(&backwards).into_iter().enumerate().skip(1) {
        let same = same.min(limit);
        if same > 0 && same >= dry.allowed as usize {
            let length = longest.entry(backwards[earlier - 1]).or_default();
            *length = same.max(*length);
        }
    }
    let penalty = |length: usize| {
        let over = i32::try_from(length - (dry.allowed as usize).min(length)).unwrap_or(i32::MAX);
        (dry.multiplier * dry.base.powi(over)).min(PENALTY_MAX)
    };
    longest.into_iter().map(|(token, length)| (token, penalty(length))).collect()
}

/// For each place, the number of tokens from it on that equal those at the beginning.
fn common_prefixes(text: &[u32]) -> Vec<usize> {
    let mut common = vec![0; text.len()];
    let (mut start, mut end) = (0, 0);
    for place in 1..text.len() {
        let known = if place < end { common[place - start].min(end - place) } else { 0 };
        let more = text[known..].iter().zip(&text[place + known..]).take_while(|(a, b)| a == b).count();
        common[place] = known + more;
        if place + common[place] > end {
            (start, end) = (place, place + common[place]);
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dry(allowed: u32, breakers: &[u32]) -> Dry {
        Dry { multiplier: 0.5, base: 2.0, allowed, last_tokens: 100, breakers: breakers.into() }
    }

    #[test]
    fn the_token_that_would_repeat_a_passage_is_penalised_by_its_length() {
        // "1 2 3" is repeated, and 4 followed.
        let text = [9, 1, 2, 3, 4, 7, 1, 2, 3];
        assert_eq!(penalties(&dry(2, &[]), &text), BTreeMap::from([(4, 1.0)]));
        assert_eq!(penalties(&dry(4, &[]), &text), BTreeMap::new());
        assert_eq!(penalties(&dry(1, &[1]), &text), BTreeMap::from([(4, 1.0)]), "2 tokens after the breaker");
        assert_eq!(penalties(&dry(1, &[3]), &text), BTreeMap::new());
        let long = vec![5; 4000];
        assert!(penalties(&dry(2, &[]), &long)[&5].is_finite());
    }

    proptest! {
        #[test]
        fn common_prefixes_are_those_of_a_plain_comparison(text in prop::collection::vec(0_u32..3, 0..60)) {
            let plain = |place: usize| text.iter().zip(&text[place..]).take_while(|(a, b)| a == b).count();
            for (place, common) in common_prefixes(&text).into_iter().enumerate().skip(1) {
                prop_assert_eq!(common, plain(place));
            }
        }
    }
}
