//! Latent attention of a layer: each token stores one compressed row, and all heads attend to it.
//!
//! A head's query is multiplied with the transposed matrix that makes its keys, so that it can be compared with the
//! compressed row itself. Its result is a weighted sum of such rows, which the matrix that makes its values turns into
//! the head's output. Both are one product a head, with rows of the head's own.

use super::arena::Arena;
use super::assignments::GROUPS_MAX;
use super::attend::{QueryHeads, TileAttention, Unit};
use super::attention::{AttentionShape, Scratch, Sums};
use super::kv::{KvCache, KvLayer, KvLayerMut, padded_value};
use super::layer::Step;
use super::norm::{rms_norm, rms_norm_in_place};
use super::parallel;
use super::rope::Angles;
use super::weights::{Latent, TransposedKeys};
use crate::kernels::{GroupJob, Isa, MatmulJob, Matrix, Split, matmul, matmul_groups};
use crate::model::{LatentSpec, Window};
use crate::shard::{LatentQuery, LatentUp};

/// Most heads that one thread attends with at a time: enough that reading a row costs little compared with using it.
const HEADS_OF_PART_MAX: usize = 8;

/// Number of heads that one thread attends with at a time.
pub(super) fn heads_of_part(latent: &LatentSpec) -> usize {
    (1..=HEADS_OF_PART_MAX.min(latent.heads)).rev().find(|heads| latent.heads.is_multiple_of(*heads)).unwrap_or(1)
}

/// The queries of a tile, and room for the results.
struct LatentQueries<'a> {
    isa: Isa,
    spec: &'a LatentSpec,
    shape: AttentionShape,
    angles: &'a Angles,
    /// `[row][head][dimension]`, of which the last are to be rotated.
    query: &'a [f32],
    /// `[head][row][compressed value]`: queries, and then results in their place.
    latent: Split<'a, f32>,
    rows: usize,
}

// === impl Step ===

impl Step<'_> {
    /// `out` = the attention of `input`, in layer number `index` of the shard. `key_copy` is the transposed part of a
    /// joint tensor.
    pub(super) fn latent(
        &mut self,
        (weights, key_copy): (&Latent, Option<&TransposedKeys>),
        epsilon: f32,
        kv: &mut KvCache,
        index: usize,
    ) {
        self.project_latent(weights, epsilon);
        self.write_latent(weights, epsilon, &kv.layer_mut(index));
        self.compress_queries(weights, key_copy);
        self.attend_to_latents(weights, kv.layer(index));
        self.expand_results(weights);
        self.multiply_into_out(&weights.output);
    }

    /// Computes `query` and, in `key`, the compressed rows from `input`.
    fn project_latent(&mut self, weights: &Latent, epsilon: f32) {
        let (rows, spec, isa) = (self.rows(), &weights.spec, self.isa);
        let Arena { input, query, key, value, .. } = &mut *self.arena;
        let query = &mut query[..rows * spec.heads * spec.query()];
        let down = MatmulJob { weights: weights.down.matrix(), out: &mut key[..rows * spec.stored()] };
        match &weights.query {
            LatentQuery::Direct(matrix) => {
                matmul(self.pool, &mut [MatmulJob { weights: matrix.matrix(), out: query }, down], input);
            }
            LatentQuery::Compressed { down: query_down, norm, up } => {
                let rank = norm.len();
                let compressed = &mut value[..rows * rank];
                let query_down = MatmulJob { weights: query_down.matrix(), out: &mut *compressed };
                matmul(self.pool, &mut [query_down, down], input);
                let normed = input.prepare(rows, rank).chunks_exact_mut(rank);
                for (normed, compressed) in normed.zip(compressed.chunks_exact(rank)) {
                    rms_norm(isa, compressed, norm, epsilon, normed);
                }
                matmul(self.pool, &mut [MatmulJob { weights: up.matrix(), out: query }], input);
            }
        }
    }

    /// Writes the tile's compressed rows, with their norm, and the shared keys, rotated, to their blocks.
    fn write_latent(&mut self, weights: &Latent, epsilon: f32, kv: &KvLayerMut<'_>) {
        let (isa, spec) = (self.isa, &weights.spec);
        let Arena { key, angles, tile, .. } = &mut *self.arena;
        let stored = key.chunks_exact_mut(spec.stored());
        for (index, (row, stored)) in tile.rows.iter().zip(stored).enumerate() {
            let (compressed, rotated) = stored.split_at_mut(spec.rank);
            rms_norm_in_place(isa, compressed, &weights.norm, epsilon);
            angles[spec.rope].apply_rope(isa, index, rotated);
            // SAFETY: there is one head, and this thread writes it.
            unsafe { kv.write(isa, row.slot, 0, stored, &[]) };
        }
    }

    /// Computes the queries for compressed rows, in `latent`.
    fn compress_queries(&mut self, weights: &Latent, key_copy: Option<&TransposedKeys>) {
        let (rows, spec) = (self.rows(), &weights.spec);
        let Arena { query, latent, .. } = &mut *self.arena;
        let (query, latent) = (std::mem::take(query), std::mem::take(latent));
        let matrix = |head: usize| match (&weights.up, key_copy) {
            (LatentUp::Split { key, .. }, _) => key.matrix_at(head).expect(CHECKED),
            (LatentUp::Joint(_), copy) => copy.expect("a joint tensor has a copy").matrix_at(head),
        };
        let from = |row: usize, head: usize| (row * spec.heads + head) * spec.query();
        let mut out = latent;
        self.multiply_heads(spec.heads, &matrix, &mut out, &|head, into| {
            for (row, into) in into.chunks_exact_mut(spec.plain).enumerate() {
                into.copy_from_slice(&query[from(row, head)..][..spec.plain]);
            }
        });
        debug_assert!(out.len() >= rows * spec.heads * spec.rank);
        (self.arena.query, self.arena.latent) = (query, out);
    }

    /// Replaces the queries in `latent` by their results.
    fn attend_to_latents(&mut self, weights: &Latent, kv: KvLayer<'_>) {
        let (rows, slices, isa, spec) = (self.rows(), self.slices, self.isa, &weights.spec);
        let Arena { query, latent, angles, tile, scratch, chunks, .. } = &mut *self.arena;
        let heads = heads_of_part(spec);
        let value_padded = padded_value(spec.rank);
        let shape = AttentionShape { heads, key: spec.stored(), value_padded, window: Window::All, softcap: None };
        let (angles, latent) = (&angles[spec.rope], Split::new(latent));
        let queries = LatentQueries { isa, spec, shape, angles, query, latent, rows };
        let all = TileAttention { pool: self.pool, isa, slices, tile, kv, shape, parts: spec.heads / heads };
        all.attend(&queries, scratch, chunks);
    }

    /// Turns the results in `latent` into the heads' outputs, in `input`.
    fn expand_results(&mut self, weights: &Latent) {
        let (rows, spec) = (self.rows(), &weights.spec);
        let Arena { query, latent, .. } = &mut *self.arena;
        let (mut query, latent) = (std::mem::take(query), std::mem::take(latent));
        let matrix = |head: usize| match &weights.up {
            LatentUp::Split { value, .. } => value.matrix_at(head).expect(CHECKED),
            LatentUp::Joint(joint) => {
                let first = head * (spec.plain + spec.value) + spec.plain;
                joint.matrix_of_rows(first..first + spec.value).expect(CHECKED)
            }
        };
        self.multiply_heads(spec.heads, &matrix, &mut query, &|head, into| {
            into.copy_from_slice(&latent[head * rows * spec.rank..][..rows * spec.rank]);
        });
        let input = Split::new(self.arena.input.prepare(rows, spec.heads * spec.value));
        parallel::rows(self.pool, rows, &|range| {
            for (row, head) in range.flat_map(|row| (0..spec.heads).map(move |head| (row, head))) {
                let start = (row * spec.heads + head) * spec.value;
                // SAFETY: each row is in one range only.
                let into = unsafe { input.part(start..start + spec.value) };
                into.copy_from_slice(&query[(head * rows + row) * spec.value..][..spec.value]);
            }
        });
        (self.arena.query, self.arena.latent) = (query, latent);
    }

    /// Multiplies each head's rows with its matrix: `out` is `[head][row][output]`. `load(head, into)` writes the rows.
    fn multiply_heads<'m>(
        &mut self,
        heads: usize,
        matrix: &(dyn Fn(usize) -> Matrix<'m> + Sync),
        out: &mut [f32],
        load: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) {
        let rows = self.rows();
        let width = rows * matrix(0).rows();
        for first in (0..heads).step_by(GROUPS_MAX) {
            let count = GROUPS_MAX.min(heads - first);
            let groups = &mut self.arena.groups[..count];
            {
                let groups = Split::new(groups);
                parallel::heads(self.pool, count, rows, &|group| {
                    let head = first + group;
                    // SAFETY: each group is in one part only.
                    let rows_of_head = unsafe { &mut groups.part(group..group + 1)[0] };
                    load(head, rows_of_head.prepare(rows, matrix(head).cols()));
                });
            }
            let mut jobs = [const { None }; GROUPS_MAX];
            let outs = out[first * width..].chunks_exact_mut(width);
            for (group, (job, out)) in jobs.iter_mut().zip(outs).take(count).enumerate() {
                *job = Some(GroupJob { weights: matrix(first + group), input: group, out });
            }
            matmul_groups(self.pool, &mut jobs[..count], groups);
        }
    }
}

/// The reason why looking up a head's matrix cannot fail.
const CHECKED: &str = "the tensors were checked to hold every head";

// === impl LatentQueries ===

impl LatentQueries<'_> {
    /// The place in `latent` of query number `index` of a unit.
    fn place(&self, unit: Unit, index: usize) -> (usize, usize, std::ops::Range<usize>) {
        let row = unit.run.start + index / self.shape.heads;
        let head = unit.part * self.shape.heads + index % self.shape.heads;
        let start = (head * self.rows + row) * self.spec.rank;
        (row, head, start..start + self.spec.rank)
    }
}

impl QueryHeads for LatentQueries<'_> {
    /// Writes the unit's queries, the rotated part after the compressed one, with their scale.
    fn load_queries(&self, unit: Unit, scratch: &mut Scratch) {
        let spec = self.spec;
        let scale = std::f32::consts::LOG2_E / spec.score_divisor;
        let count = unit.run.rows * self.shape.heads;
        for (index, query) in scratch.queries.chunks_exact_mut(spec.stored()).take(count).enumerate() {
            let (row, head, place) = self.place(unit, index);
            let (compressed, rotated) = query.split_at_mut(spec.rank);
            // SAFETY: results are written to this place after the queries of all parts of the unit are loaded.
            compressed.copy_from_slice(unsafe { self.latent.shared(place) });
            let start = (row * spec.heads + head) * spec.query() + spec.plain;
            rotated.copy_from_slice(&self.query[start..start + spec.rotated]);
            self.angles.apply_rope(self.isa, row, rotated);
            for value in query {
                *value *= scale;
            }
        }
    }

    /// Writes the unit's result in place of its queries.
    fn store_result(&self, unit: Unit, found: &Sums) {
        for index in 0..unit.run.rows * self.shape.heads {
            let (_, _, place) = self.place(unit, index);
            // SAFETY: each head of a row is in one unit only.
            let out = unsafe { self.latent.part(place) };
            out.copy_from_slice(&found.values[index * self.shape.value_padded..][..self.spec.rank]);
        }
    }
}
