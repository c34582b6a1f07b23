//! Time for which a micro-batch keeps the slowest stage busy, by its rows. It is learned from the times that the stages
//! report. Pure.

use std::time::Duration;

/// Row counts are kept apart by powers of two: 1, 2, 3-4, 5-8, ….
const CLASSES: usize = 16;
/// Weight of a new observation in the mean of its class.
const NEW_WEIGHT: f64 = 0.1;
/// Beyond the largest number of rows seen, a row is assumed to cost this share of the average cost of a row there:
/// reading the weights is paid once. The assumption holds until such a micro-batch was seen.
const UNSEEN_ROW_SHARE: f64 = 0.25;

/// Running means of rows and seconds.
#[derive(Debug, Clone, Copy)]
struct Class {
    rows: f64,
    seconds: f64,
}

/// The observations so far.
#[derive(Debug, Default)]
pub(crate) struct StepCost {
    classes: [Option<Class>; CLASSES],
}

// === impl StepCost ===

impl StepCost {
    /// A micro-batch of `rows` rows (at least one) kept the slowest stage busy for `time`.
    pub(crate) fn observe(&mut self, rows: u32, time: Duration) {
        let class = (rows.max(1).next_power_of_two().trailing_zeros() as usize).min(CLASSES - 1);
        let (rows, seconds) = (f64::from(rows), time.as_secs_f64());
        let class = self.classes[class].get_or_insert(Class { rows, seconds });
        class.rows += (rows - class.rows) * NEW_WEIGHT;
        class.seconds += (seconds - class.seconds) * NEW_WEIGHT;
    }

    /// Expected time of `rows` rows, in seconds. It never falls with more rows. `None` before the first observation.
    pub(crate) fn seconds(&self, rows: u32) -> Option<f64> {
        let rows = f64::from(rows);
        let mut below: Option<Class> = None;
        for class in self.monotone().into_iter().flatten() {
            if class.rows >= rows {
                let Some(below) = below.filter(|below| below.rows < class.rows) else {
                    return Some(class.seconds * (rows / class.rows));
                };
                let share = ((rows - below.rows) / (class.rows - below.rows)).clamp(0.0, 1.0);
                return Some(below.seconds + (class.seconds - below.seconds) * share);
            }
            below = Some(class);
        }
        let last = below?;
        Some(last.seconds + (rows - last.rows) * last.seconds / last.rows * UNSEEN_ROW_SHARE)
    }

    /// The means, each lowered to that of more rows if it is above it. A mean above that of more rows is out of date:
    /// it was observed while the machine was busy with something else or histories were longer, and it does not change
    /// while there are no such micro-batches.
    fn monotone(&self) -> [Option<Class>; CLASSES] {
        let mut classes = self.classes;
        let mut least = f64::INFINITY;
        for class in classes.iter_mut().rev().flatten() {
            least = least.min(class.seconds);
            class.seconds = least;
        }
        classes
    }

    /// The most rows, up to `rows_max`, that should take `seconds` at most.
    pub(crate) fn rows_within(&self, seconds: f64, rows_max: u32) -> u32 {
        let (mut fit, mut too_many) = (0, rows_max + 1);
        while too_many - fit > 1 {
            let middle = fit + (too_many - fit) / 2;
            if self.seconds(middle).is_none_or(|expected| expected <= seconds) {
                fit = middle;
            } else {
                too_many = middle;
            }
        }
        fit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(seconds: f64) -> u128 {
        (seconds * 1e6).round() as u128 / 1000
    }

    #[test]
    fn between_two_observations_the_cost_lies_between_them() {
        let mut cost = StepCost::default();
        assert_eq!(cost.seconds(1), None);
        cost.observe(1, Duration::from_millis(10));
        cost.observe(65, Duration::from_millis(74));
        assert_eq!([1, 33, 65].map(|rows| ms(cost.seconds(rows).unwrap())), [10, 42, 74]);
        assert_eq!(cost.rows_within(0.0425, 256), 33);
        assert_eq!(cost.rows_within(0.001, 256), 0);
    }

    #[test]
    fn unseen_row_counts_cost_less_than_in_proportion() {
        let mut cost = StepCost::default();
        cost.observe(1, Duration::from_millis(10));
        assert_eq!(ms(cost.seconds(5).unwrap()), 20);
        cost.observe(5, Duration::from_millis(50));
        assert_eq!(ms(cost.seconds(5).unwrap()), 50);
    }

    #[test]
    fn a_slow_small_batch_does_not_raise_the_cost_of_larger_ones() {
        let mut cost = StepCost::default();
        cost.observe(1, Duration::from_millis(50));
        for _ in 0..3 {
            cost.observe(4, Duration::from_millis(6));
        }
        assert_eq!([1, 4].map(|rows| ms(cost.seconds(rows).unwrap())), [6, 6]);
    }

    proptest! {
        #[test]
        fn more_rows_never_cost_less(
            seen in prop::collection::vec((1_u32..300, 1_u64..100_000), 1..60), rows in 1_u32..400, more in 0_u32..400
        ) {
            let mut cost = StepCost::default();
            for (rows, micros) in seen {
                cost.observe(rows, Duration::from_micros(micros));
            }
            let (few, many) = (cost.seconds(rows).unwrap(), cost.seconds(rows + more).unwrap());
            prop_assert!(few > 0.0 && many >= few - 1e-12, "{rows}: {few}, {more} more: {many}");
            let fit = cost.rows_within(few, 1000);
            prop_assert!(fit >= rows || cost.seconds(rows).unwrap() > few);
        }
    }
}
