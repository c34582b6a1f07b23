//! Percentiles of measured times.

use std::time::Duration;

use serde::Serialize;

/// Percentiles of times in milliseconds, by nearest rank: a percentile is the least measured time that at least this
/// share of all times does not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Number of times.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
}

// === impl Percentiles ===

impl Percentiles {
    /// The percentiles of `times`, which may be in any order. `None` if there are no times.
    pub(super) fn of(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        let at = |percent| nearest_rank(&times, percent).map(|time: Duration| time.as_secs_f64() * 1000.0);
        Some(Self { count: times.len(), p50: at(50)?, p95: at(95)?, p99: at(99)? })
    }
}

/// The first value of `sorted` that at least `percent` of all values do not exceed.
fn nearest_rank<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_percentile_is_the_least_time_that_enough_do_not_exceed(
            times in prop::collection::vec(0_u64..50, 1..300),
            percent in 1_usize..=100,
        ) {
            let up_to = |time: u64| times.iter().filter(|other| **other <= time).count();
            let enough = |time: u64| up_to(time) * 100 >= percent * times.len();
            let expected = times.iter().copied().filter(|time| enough(*time)).min();
            let mut sorted = times.clone();
            sorted.sort_unstable();
            prop_assert_eq!(nearest_rank(&sorted, percent), expected);
        }
    }

    #[test]
    fn percentiles_are_in_milliseconds_and_need_a_time() {
        let times = (1..=200).rev().map(Duration::from_millis);
        let expected = Percentiles { count: 200, p50: 100.0, p95: 190.0, p99: 198.0 };
        assert_eq!(Percentiles::of(times), Some(expected));
        assert_eq!(Percentiles::of([]), None);
    }
}
