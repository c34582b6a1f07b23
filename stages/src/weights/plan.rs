//! Which byte ranges of the file to map for a set of tensors. Pure.

use std::ops::Range;

/// The fewest runs that cover `tensors` (byte ranges in any order) without a whole page that none of them touches.
pub(super) fn runs(mut tensors: Vec<Range<u64>>, page_bytes: u64) -> Vec<Range<u64>> {
    tensors.sort_unstable_by_key(|tensor| tensor.start);
    let mut runs: Vec<Range<u64>> = Vec::new();
    for tensor in tensors {
        match runs.last_mut() {
            Some(run) if tensor.start / page_bytes <= run.end.div_ceil(page_bytes) => run.end = run.end.max(tensor.end),
            _ => runs.push(tensor),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_run_and_a_free_page_between_parts_two() {
        assert_eq!(runs(vec![4096..5000, 100..4000, 5024..6000], 4096), [100..6000]);
        // The first ends in page 0, so page 1 is nobody's, and the second starts in page 2.
        assert_eq!(runs(vec![100..4000, 8192..9000], 4096), [100..4000, 8192..9000]);
        assert_eq!(runs(vec![], 4096), []);
    }

    #[test]
    fn no_page_is_in_two_runs() {
        // Ends on the boundary of page 1, starts inside page 1.
        assert_eq!(runs(vec![0..4096, 4200..4300], 4096), [0..4300]);
        assert_eq!(runs(vec![0..4097, 8191..8200], 4096), [0..8200]);
    }
}
