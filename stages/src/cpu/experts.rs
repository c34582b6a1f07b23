//! Computes the experts of a layer. Rows are grouped by expert, so that each expert's weights are read once a tile.
//!
//! A row's result is the sum of its experts' results in the order of the experts, from zero. Each of these is a product
//! of the row alone. So the row's bits do not depend on the rows that share its experts.

use super::arena::Arena;
use super::assignments::{Batch, GROUPS_MAX};
use super::layer::{Step, activate};
use super::math::{add, add_scaled, sigmoid};
use super::norm::{rms_norm, rms_norm_in_place};
use super::parallel;
use super::routing::{Choice, Router};
use super::weights::Experts;
use crate::kernels::{GroupJob, MatmulJob, Matrix, Rows, Split, dequantise_block_bytes, matmul, matmul_groups};
use crate::shard::{ExpertNorms, GatesUps};

// === impl Step ===

impl Step<'_> {
    /// `out` = the experts' results for `input`, or for the residual stream where they have norms of their own.
    pub(super) fn experts(&mut self, experts: &Experts, epsilon: f32, layer: usize) {
        if let Some(norms) = &experts.own_norms {
            return self.normed_experts(experts, norms, epsilon, layer);
        }
        self.choose(experts);
        self.ask_ahead(experts, layer);
        self.mix(experts);
        let (rows, hidden, isa) = (self.rows(), self.spec.hidden, self.isa);
        let Some(shared) = &experts.shared else {
            let Arena { mixed, out, .. } = &mut *self.arena;
            return std::mem::swap(mixed, out);
        };
        self.dense(shared);
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

    /// The same with norms of the router, the experts and the network beside them.
    fn normed_experts(&mut self, experts: &Experts, norms: &ExpertNorms<Vec<f32>>, epsilon: f32, layer: usize) {
        let (rows, hidden, isa) = (self.rows(), self.spec.hidden, self.isa);
        match &experts.shared {
            Some(shared) => {
                self.dense(shared);
                self.finish_term(Some(&norms.after_shared), epsilon, 1.0);
            }
            None => self.arena.out[..rows * hidden].fill(0.0),
        }
        self.load_router_input(&norms.router, epsilon);
        self.choose(experts);
        self.ask_ahead(experts, layer);
        self.normalise(Some(&norms.before), epsilon, false);
        self.mix(experts);
        let Arena { mixed, out, .. } = &mut *self.arena;
        let (mixed, out) = (Split::new(mixed), Split::new(out));
        parallel::rows(self.pool, rows, &|range| {
            for row in range {
                let values = row * hidden..(row + 1) * hidden;
                // SAFETY: each row is in one range only.
                let (mixed, out) = unsafe { (mixed.part(values.clone()), out.part(values)) };
                rms_norm_in_place(isa, mixed, &norms.after, epsilon);
                add(isa, out, mixed);
            }
        });
    }

    /// Writes the norm of the residual stream, divided by the root of its width, to `input`.
    fn load_router_input(&mut self, weight: &[f32], epsilon: f32) {
        let (rows, hidden, isa) = (self.rows(), self.spec.hidden, self.isa);
        let factor = (hidden as f32).sqrt().recip();
        let Arena { x, input, .. } = &mut *self.arena;
        let (x, input) = (&*x, Split::new(input.prepare(rows, hidden)));
        parallel::rows(self.pool, rows, &|range| {
            for row in range {
                let values = row * hidden..(row + 1) * hidden;
                // SAFETY: each row is in one range only.
                let input = unsafe { input.part(values.clone()) };
                rms_norm(isa, &x[values], weight, epsilon, input);
                input.iter_mut().for_each(|value| *value *= factor);
            }
        });
    }

    /// `mixed` = the sums of the chosen experts' results for `input`.
    fn mix(&mut self, experts: &Experts) {
        let hidden = self.spec.hidden;
        let rows = self.rows();
        self.arena.mixed[..rows * hidden].fill(0.0);
        let mut next = 0;
        while let Some(batch) = self.arena.assignments.batch(&mut next) {
            self.compute(experts, batch);
            self.accumulate(experts, batch);
        }
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
        let choose = Router {
            isa,
            routing: spec.routing,
            selection_bias: experts.selection_bias.as_deref(),
            scales: experts.scales.as_deref(),
        };
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

    /// Asks the system for the pages of chosen experts that are not in memory, all at once, before the first is
    /// computed: of those that were never chosen, and of all if pages may have left memory.
    fn ask_ahead(&self, experts: &Experts, layer: usize) {
        for expert in (0..experts.spec.count).filter(|expert| !self.arena.assignments.places_of(*expert).is_empty()) {
            if !self.touched.touch(layer, expert) && !self.pages_left {
                continue;
            }
            match &experts.gates_ups {
                GatesUps::Split { gates, ups } => [gates, ups].iter().for_each(|tensor| tensor.ask_ahead(expert)),
                GatesUps::Fused(both) => both.ask_ahead(expert),
            }
            experts.downs.ask_ahead(expert);
        }
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
                let places = assignments.places_of(expert);
                let each = assignments.rows[places.clone()].iter().zip(&assignments.weights[places]);
                for (into, (row, weight)) in into.zip(each) {
                    into.copy_from_slice(&values[*row as usize * hidden..][..hidden]);
                    if experts.spec.routing.weigh_inputs {
                        into.iter_mut().for_each(|value| *value *= weight);
                    }
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
            let [gate, up] = gate_and_up(experts, expert);
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
        let weigh_inputs = experts.spec.routing.weigh_inputs;
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
                        let weight = if weigh_inputs { 1.0 } else { assignments.choices[slot].weight };
                        add_scaled(isa, mixed, result, weight);
                    }
                }
            }
        });
    }
}

/// The matrices of one expert that make its gate and the values that it is multiplied with.
fn gate_and_up(experts: &Experts, expert: usize) -> [Matrix<'_>; 2] {
    let width = experts.spec.width;
    let matrices = match &experts.gates_ups {
        GatesUps::Split { gates, ups } => [gates, ups].map(|tensor| tensor.matrix_at(expert)),
        GatesUps::Fused(both) => {
            [2 * expert, 2 * expert + 1].map(|half| both.matrix_of_rows(half * width..(half + 1) * width))
        }
    };
    matrices.map(|matrix| matrix.expect(COUNTED))
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
