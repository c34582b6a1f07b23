//! Selects the byte ranges of the file to map for a set of tensors. Pure.

use std::ops::Range;

/// The smallest number of runs that cover `tensors` (byte ranges in any order) and include no page that no tensor
/// touches.
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_cover_every_tensor_and_no_page_that_none_touches(
            tensors in prop::collection::vec((0u64..200, 1u64..60), 0..20),
        ) {
            const PAGE: u64 = 16;
            let tensors: Vec<_> = tensors.into_iter().map(|(start, bytes)| start..start + bytes).collect();
            let pages = |range: &Range<u64>| range.start / PAGE..range.end.div_ceil(PAGE);
            let runs = runs(tensors.clone(), PAGE);
            for tensor in &tensors {
                prop_assert!(runs.iter().any(|run| run.start <= tensor.start && tensor.end <= run.end));
            }
            for page in runs.iter().flat_map(pages) {
                let touched = tensors.iter().any(|tensor| pages(tensor).contains(&page));
                prop_assert!(touched, "no tensor touches page {page}");
            }
            for pair in runs.windows(2) {
                prop_assert!(pages(&pair[0]).end < pages(&pair[1]).start, "neighbours are one run");
            }
        }
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one run is a list of one range")]
    fn adjacent_tensors_are_one_run_and_a_free_page_separates_two() {
        assert_eq!(runs(vec![4096..5000, 100..4000, 5024..6000], 4096), [100..6000]);
        // The first ends in page 0 and the second starts in page 2, so no tensor touches page 1.
        assert_eq!(runs(vec![100..4000, 8192..9000], 4096), [100..4000, 8192..9000]);
        assert_eq!(runs(vec![], 4096), []);
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one run is a list of one range")]
    fn no_page_is_in_two_runs() {
        // The first ends at the start of page 1, and the second starts inside page 1.
        assert_eq!(runs(vec![0..4096, 4200..4300], 4096), [0..4300]);
        assert_eq!(runs(vec![0..4097, 8191..8200], 4096), [0..8200]);
    }
}
