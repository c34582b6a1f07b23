//! The rows of a tile grouped by the experts that they chose, and the batches of experts that are computed together.

use std::ops::Range;

use super::arena::ROWS_MAX;
use super::routing::Choice;

/// Experts that are computed in one parallel region: enough that all of a single row's are.
pub(super) const GROUPS_MAX: usize = 8;

/// The rows of a tile grouped by expert.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    /// `[row][slot]`: the experts of each row.
    pub(super) choices: Vec<Choice>,
    /// `[row][slot]`: the place of each of them among all rows in the order of experts.
    pub(super) places: Vec<u32>,
    /// The row at each place.
    pub(super) rows: Vec<u32>,
    /// The weight of the row at each place.
    pub(super) weights: Vec<f32>,
    /// First place of each expert, and the number of places.
    starts: Vec<u32>,
}

/// Experts that are computed together, and their places, which are neighbours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// The experts and their numbers of rows, those with the most rows first.
    pub(super) experts: [(usize, usize); GROUPS_MAX],
    pub(super) len: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Most rows that group number `group` of a batch has: a batch has at most [`ROWS_MAX`] rows and begins with the
/// expert that has the most.
pub(super) fn group_rows_max(group: usize) -> usize {
    ROWS_MAX / (group + 1)
}

// === impl Assignments ===

impl Assignments {
    /// Assignments of up to [`ROWS_MAX`] rows to `chosen` of `count` experts each.
    pub(super) fn with_capacity(count: usize, chosen: usize) -> Self {
        let places = ROWS_MAX * chosen;
        Self {
            choices: Vec::with_capacity(places),
            places: Vec::with_capacity(places),
            rows: Vec::with_capacity(places),
            weights: Vec::with_capacity(places),
            starts: Vec::with_capacity(if chosen > 0 { count + 1 } else { 0 }),
        }
    }

    /// Bytes that such assignments take.
    pub(super) fn bytes(count: usize, chosen: usize) -> usize {
        let starts = if chosen > 0 { count + 1 } else { 0 };
        ROWS_MAX * chosen * (size_of::<Choice>() + 2 * size_of::<u32>() + size_of::<f32>()) + starts * size_of::<u32>()
    }

    /// Groups the rows of `choices` by expert, each expert's in the order of the tile.
    pub(super) fn group(&mut self, count: usize, chosen: usize) {
        let Self { choices, places, rows, weights, starts } = self;
        starts.clear();
        starts.resize(count + 1, 0);
        choices.iter().for_each(|choice| starts[choice.expert as usize + 1] += 1);
        for expert in 0..count {
            starts[expert + 1] += starts[expert];
        }
        places.resize(choices.len(), 0);
        rows.resize(choices.len(), 0);
        weights.resize(choices.len(), 0.0);
        for (slot, choice) in choices.iter().enumerate() {
            // While rows are placed, an expert's start is its next free place.
            let next = &mut starts[choice.expert as usize];
            (places[slot], rows[*next as usize]) = (*next, (slot / chosen) as u32);
            weights[*next as usize] = choice.weight;
            *next += 1;
        }
        starts.rotate_right(1);
        starts[0] = 0;
    }

    /// The places of an expert's rows.
    pub(super) fn places_of(&self, expert: usize) -> Range<usize> {
        self.starts[expert] as usize..self.starts[expert + 1] as usize
    }

    /// The next experts with rows, from `next` on.
    pub(super) fn batch(&self, next: &mut usize) -> Option<Batch> {
        let mut batch = Batch { experts: [(0, 0); GROUPS_MAX], len: 0, start: 0, end: 0 };
        while *next + 1 < self.starts.len() && batch.len < GROUPS_MAX {
            let places = self.places_of(*next);
            if batch.len > 0 && places.end - batch.start > ROWS_MAX {
                break;
            }
            if !places.is_empty() {
                batch.start = if batch.len == 0 { places.start } else { batch.start };
                batch.experts[batch.len] = (*next, places.len());
                (batch.len, batch.end) = (batch.len + 1, places.end);
            }
            *next += 1;
        }
        batch.experts[..batch.len].sort_unstable_by_key(|(expert, rows)| (usize::MAX - rows, *expert));
        (batch.len > 0).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignments(experts: &[u32], count: usize, chosen: usize) -> Assignments {
        let mut assignments = Assignments::with_capacity(count, chosen);
        assignments.choices.extend(experts.iter().map(|expert| Choice { expert: *expert, weight: 1.0 }));
        assignments.group(count, chosen);
        assignments
    }

    #[test]
    fn rows_are_grouped_by_expert_in_the_order_of_the_tile() {
        let found = assignments(&[1, 3, 0, 3, 1, 2, 1, 3], 5, 2);
        let rows = |expert| found.rows[found.places_of(expert)].to_vec();
        assert_eq!([0, 1, 2, 3, 4].map(rows), [vec![1], vec![0, 2, 3], vec![2], vec![0, 1, 3], vec![]]);
        let places: Vec<_> = found.places.iter().map(|place| found.rows[*place as usize]).collect();
        assert_eq!(places, [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn batches_take_every_expert_with_rows_once_and_stay_within_their_bounds() {
        for (count, salt) in [(4, 7), (64, 13), (256, 5)] {
            let experts: Vec<u32> = (0..ROWS_MAX as u32 * 2).map(|slot| slot * slot * salt / 3 % count).collect();
            let found = assignments(&experts, count as usize, 2);
            let (mut next, mut seen, mut end) = (0, Vec::new(), 0);
            while let Some(batch) = found.batch(&mut next) {
                assert_eq!(batch.start, end, "batches follow each other");
                end = batch.end;
                for (group, (expert, rows)) in batch.experts[..batch.len].iter().enumerate() {
                    assert!((1..=group_rows_max(group)).contains(rows), "{rows} rows in group {group}");
                    seen.push(*expert as u32);
                }
            }
            assert_eq!(end, experts.len());
            let mut expected = experts.clone();
            expected.sort_unstable();
            expected.dedup();
            seen.sort_unstable();
            assert_eq!(seen, expected);
        }
    }
}
