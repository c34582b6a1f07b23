//! Computes the experts of a layer. Rows are grouped by expert, so that each expert's weights are read once a tile.
//!
//! A row's result is the sum of its experts' results in the order of the experts, from zero. Each of these is a product
//! of the row alone. So the row's bits do not depend on the rows that share its experts.

use std::ops::Range;

use super::arena::{Arena, ROWS_MAX};
use super::layer::{Step, activate};
use super::math::{add, add_scaled, sigmoid};
use super::parallel;
use super::routing::{Choice, Router};
use super::weights::Experts;
use crate::kernels::{GroupJob, MatmulJob, Matrix, Rows, Split, dequantise_block_bytes, matmul, matmul_groups};

/// Experts that are computed in one parallel region: enough that all of a single row's are.
pub(super) const GROUPS_MAX: usize = 8;

/// The rows of a tile grouped by expert.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    /// `[row][slot]`: the experts of each row.
    choices: Vec<Choice>,
    /// `[row][slot]`: the place of each of them among all rows in the order of experts.
    places: Vec<u32>,
    /// The row at each place.
    rows: Vec<u32>,
    /// First place of each expert, and the number of places.
    starts: Vec<u32>,
}

/// Experts that are computed together, and their places, which are neighbours.
#[derive(Debug, Clone, Copy)]
struct Batch {
    /// The experts and their numbers of rows, those with the most rows first.
    experts: [(usize, usize); GROUPS_MAX],
    len: usize,
    start: usize,
    end: usize,
}

/// Most rows that group number `group` of a batch has: a batch has at most [`ROWS_MAX`] rows and begins with the
/// expert that has the most.
pub(super) fn group_rows_max(group: usize) -> usize {
    ROWS_MAX / (group + 1)
}

// === impl Step ===

impl Step<'_> {
    /// `out` = the experts' results for `input`.
    pub(super) fn experts(&mut self, experts: &Experts) {
        let hidden = self.spec.hidden;
        self.choose(experts);
        let rows = self.rows();
        self.arena.mixed[..rows * hidden].fill(0.0);
        let mut next = 0;
        while let Some(batch) = self.arena.assignments.batch(&mut next) {
            self.compute(experts, batch);
            self.accumulate(experts, batch);
        }
        let Some(shared) = &experts.shared else {
            let Arena { mixed, out, .. } = &mut *self.arena;
            return std::mem::swap(mixed, out);
        };
        self.dense(shared);
        let isa = self.isa;
        let Arena { mixed, out, shared_gates, .. } = &mut *self.arena;
        let out = Split::new(out);
        parallel::rows(self.pool, rows, &|range| {
            for row in range {
                let values = row * hidden..(row + 1) * hidden;
                // SAFETY: each row is in one range only.
                let out = unsafe { out.part(values.clone()) };
                if experts.shared_router.is_some() {
                    let factor = shared_gates[row];
                    out.iter_mut().for_each(|value| *value *= factor);
                }
                add(isa, out, &mixed[values]);
            }
        });
    }

    /// Chooses the experts of each row and groups the rows by expert.
    fn choose(&mut self, experts: &Experts) {
        let (rows, isa, spec) = (self.rows(), self.isa, &experts.spec);
        let Arena { input, router, ranks, shared_gates, assignments, .. } = &mut *self.arena;
        let logits = &mut router[..rows * spec.count];
        let router = MatmulJob { weights: experts.router.matrix(), out: &mut *logits };
        match &experts.shared_router {
            Some(gate) => {
                let gates = &mut shared_gates[..rows];
                let gate = MatmulJob { weights: gate.matrix(), out: &mut *gates };
                matmul(self.pool, &mut [router, gate], input);
                sigmoid(isa, gates);
            }
            None => matmul(self.pool, &mut [router], input),
        }
        let choose = Router { isa, routing: spec.routing, selection_bias: experts.selection_bias.as_deref() };
        assignments.choices.resize(rows * spec.chosen, Choice::default());
        let each = logits.chunks_exact_mut(spec.count).zip(assignments.choices.chunks_exact_mut(spec.chosen));
        for (logits, choices) in each {
            if let Some(bias) = &experts.router_bias {
                add(isa, logits, bias);
            }
            choose.choose(logits, &mut ranks[..spec.count], choices);
        }
        assignments.group(spec.count, spec.chosen);
    }

    /// Computes the experts of `batch` for their rows. Leaves the results in `expert_out`, in the order of places.
    fn compute(&mut self, experts: &Experts, batch: Batch) {
        let (hidden, width, isa) = (self.spec.hidden, experts.spec.width, self.isa);
        let Arena { input, gate, up, expert_out, groups, assignments, .. } = &mut *self.arena;
        let (values, count) = (input.values(), batch.end - batch.start);
        {
            let groups = Split::new(groups);
            parallel::heads(self.pool, batch.len, count, &|group| {
                let (expert, rows) = batch.experts[group];
                // SAFETY: each group is in one part only.
                let group = unsafe { &mut groups.part(group..group + 1)[0] };
                let into = group.prepare(rows, hidden).chunks_exact_mut(hidden);
                for (into, row) in into.zip(&assignments.rows[assignments.places_of(expert)]) {
                    into.copy_from_slice(&values[*row as usize * hidden..][..hidden]);
                }
            });
        }
        let (gate, up) = (&mut gate[..count * width], &mut up[..count * width]);
        let (gates, ups) = (Split::new(gate), Split::new(up));
        let part = |expert: usize, width: usize| {
            let places = assignments.places_of(expert);
            (places.start - batch.start) * width..(places.end - batch.start) * width
        };
        let mut jobs = [const { None }; 2 * GROUPS_MAX];
        for (group, jobs) in jobs.as_chunks_mut::<2>().0.iter_mut().take(batch.len).enumerate() {
            let (expert, _) = batch.experts[group];
            let job = |weights, out| Some(GroupJob { weights, input: group, out });
            let [gate, up] = [&experts.gates, &experts.ups].map(|tensor| tensor.matrix_at(expert).expect(COUNTED));
            // SAFETY: the parts of two experts do not overlap, and each is lent to one job.
            *jobs = unsafe { [job(gate, gates.part(part(expert, width))), job(up, ups.part(part(expert, width)))] };
        }
        matmul_groups(self.pool, &mut jobs[..2 * batch.len], groups);
        {
            let groups = Split::new(groups);
            parallel::heads(self.pool, batch.len, count, &|group| {
                let (expert, rows) = batch.experts[group];
                // SAFETY: each group is in one part only, and so is each expert.
                let (group, gate, up): (&mut Rows, _, _) = unsafe {
                    let part = part(expert, width);
                    (&mut groups.part(group..group + 1)[0], gates.part(part.clone()), ups.part(part))
                };
                if let Some([gate_biases, up_biases, _]) = &experts.biases {
                    add_row(&gate_biases.matrix(), expert, gate);
                    add_row(&up_biases.matrix(), expert, up);
                }
                activate(isa, experts.spec.activation, gate, up, group.prepare(rows, width));
            });
        }
        let outs = Split::new(&mut expert_out[..count * hidden]);
        let mut jobs = [const { None }; GROUPS_MAX];
        for (group, job) in jobs.iter_mut().take(batch.len).enumerate() {
            let (expert, _) = batch.experts[group];
            let weights = experts.downs.matrix_at(expert).expect(COUNTED);
            // SAFETY: as above.
            let out = unsafe { outs.part(part(expert, hidden)) };
            *job = Some(GroupJob { weights, input: group, out });
        }
        matmul_groups(self.pool, &mut jobs[..batch.len], groups);
        if let Some([.., down_biases]) = &experts.biases {
            for (expert, _) in &batch.experts[..batch.len] {
                add_row(&down_biases.matrix(), *expert, &mut expert_out[part(*expert, hidden)]);
            }
        }
    }

    /// Adds the results of `batch` to the rows' sums.
    fn accumulate(&mut self, experts: &Experts, batch: Batch) {
        let (hidden, isa, chosen) = (self.spec.hidden, self.isa, experts.spec.chosen);
        let rows = self.rows();
        let Arena { mixed, expert_out, assignments, .. } = &mut *self.arena;
        let mixed = Split::new(mixed);
        parallel::rows(self.pool, rows, &|range| {
            for row in range {
                // SAFETY: each row is in one range only.
                let mixed = unsafe { mixed.part(row * hidden..(row + 1) * hidden) };
                for slot in row * chosen..(row + 1) * chosen {
                    let place = assignments.places[slot] as usize;
                    if (batch.start..batch.end).contains(&place) {
                        let result = &expert_out[(place - batch.start) * hidden..][..hidden];
                        add_scaled(isa, mixed, result, assignments.choices[slot].weight);
                    }
                }
            }
        });
    }
}

/// Adds row `row` of `matrix` to each of `rows`, which are as long.
fn add_row(matrix: &Matrix<'_>, row: usize, rows: &mut [f32]) {
    let mut values = [0.0; BIAS_PART];
    let stored = matrix.row(row);
    let part_bytes = matrix.format().row_bytes(BIAS_PART).unwrap_or(stored.len());
    for (index, stored) in stored.chunks(part_bytes).enumerate() {
        let start = index * BIAS_PART;
        let values = &mut values[..BIAS_PART.min(matrix.cols() - start)];
        dequantise_block_bytes(matrix.format(), stored, values);
        for row in rows.chunks_exact_mut(matrix.cols()) {
            row[start..].iter_mut().zip(&*values).for_each(|(value, bias)| *value += bias);
        }
    }
}

/// Values of a bias that are expanded at a time: whole blocks of every format.
const BIAS_PART: usize = 256;

/// The reason why looking up a chosen expert cannot fail.
const COUNTED: &str = "experts are chosen among those whose tensors were checked";

// === impl Assignments ===

impl Assignments {
    /// Assignments of up to [`ROWS_MAX`] rows to `chosen` of `count` experts each.
    pub(super) fn with_capacity(count: usize, chosen: usize) -> Self {
        let places = ROWS_MAX * chosen;
        Self {
            choices: Vec::with_capacity(places),
            places: Vec::with_capacity(places),
            rows: Vec::with_capacity(places),
            starts: Vec::with_capacity(if chosen > 0 { count + 1 } else { 0 }),
        }
    }

    /// Bytes that such assignments take.
    pub(super) fn bytes(count: usize, chosen: usize) -> usize {
        let starts = if chosen > 0 { count + 1 } else { 0 };
        ROWS_MAX * chosen * (size_of::<Choice>() + 2 * size_of::<u32>()) + starts * size_of::<u32>()
    }

    /// Groups the rows of `choices` by expert, each expert's in the order of the tile.
    fn group(&mut self, count: usize, chosen: usize) {
        let Self { choices, places, rows, starts } = self;
        starts.clear();
        starts.resize(count + 1, 0);
        choices.iter().for_each(|choice| starts[choice.expert as usize + 1] += 1);
        for expert in 0..count {
            starts[expert + 1] += starts[expert];
        }
        places.resize(choices.len(), 0);
        rows.resize(choices.len(), 0);
        for (slot, choice) in choices.iter().enumerate() {
            // While rows are placed, an expert's start is its next free place.
            let next = &mut starts[choice.expert as usize];
            (places[slot], rows[*next as usize]) = (*next, (slot / chosen) as u32);
            *next += 1;
        }
        starts.rotate_right(1);
        starts[0] = 0;
    }

    /// The places of an expert's rows.
    fn places_of(&self, expert: usize) -> Range<usize> {
        self.starts[expert] as usize..self.starts[expert + 1] as usize
    }

    /// The next experts with rows, from `next` on.
    fn batch(&self, next: &mut usize) -> Option<Batch> {
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
