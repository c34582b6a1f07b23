//! Finds the likeliest tokens of a position, and the rank of one token.

/// Logits that are compared with the least of the best at once. Most chunks have no larger one.
const CHUNK: usize = 64;

/// Writes the tokens of the `count` largest logits to `best`, the largest first, and of equal ones the lower id first.
pub(super) fn largest(logits: &[f32], count: usize, best: &mut Vec<u32>) {
    best.clear();
    if count == 0 {
        return;
    }
    for (index, chunk) in logits.chunks(CHUNK).enumerate() {
        let least = match best.last() {
            Some(last) if best.len() == count => logits[*last as usize],
            _ => f32::NEG_INFINITY,
        };
        if best.len() == count && !has_larger(chunk, least) {
            continue;
        }
        for (offset, logit) in chunk.iter().enumerate() {
            let is_full = best.len() == count;
            if is_full && best.last().is_some_and(|last| logits[*last as usize] >= *logit) {
                continue;
            }
            let place = best.partition_point(|other| logits[*other as usize] >= *logit);
            best.truncate(count - usize::from(is_full));
            best.insert(place.min(best.len()), (index * CHUNK + offset) as u32);
        }
    }
}

/// True if a value of `chunk` is larger than `least`.
fn has_larger(chunk: &[f32], least: f32) -> bool {
    // Without an early exit, so that the loop becomes vector instructions.
    chunk.iter().fold(false, |found, value| found | (*value > least))
}

/// Rank of `token` among the logits, from 1: larger logits go before it, and so do equal ones with a lower id.
pub(super) fn rank(logits: &[f32], token: usize) -> u32 {
    let own = logits[token];
    let larger = logits.iter().map(|logit| u32::from(*logit > own)).sum::<u32>();
    let equal = logits[..token].iter().map(|logit| u32::from(*logit == own)).sum::<u32>();
    1 + larger + equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_found_in_order_and_have_these_ranks() {
        let logits: Vec<f32> = (0..1000_u32).map(|token| ((token * 7919 + 13) % 211) as f32).collect();
        let mut expected: Vec<u32> = (0..1000).collect();
        expected.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
        for count in [0, 1, 5, 20, 1000, 1001] {
            let mut best = vec![4];
            largest(&logits, count, &mut best);
            assert_eq!(best, expected[..count.min(1000)], "{count}");
        }
        for (place, token) in expected.iter().enumerate() {
            assert_eq!(rank(&logits, *token as usize) as usize, place + 1);
        }
    }

    #[test]
    fn forbidden_logits_are_listed_last() {
        let logits = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY];
        let mut best = Vec::new();
        largest(&logits, 2, &mut best);
        assert_eq!(best, [1, 0]);
    }
}
