//! Grouped attention of a layer: keys and values are written to the KV cache, and queries attend to them.

use super::arena::{Arena, UNITS_PER_THREAD};
use super::attention::{AttentionShape, Scratch, Span, Sums, attend, attend_single_chunk, merge};
use super::kv::{KvCache, KvLayer, KvLayerMut, padded_value};
use super::layer::Step;
use super::math::add;
use super::norm::rms_norm_in_place;
use super::parallel;
use super::rope::Angles;
use super::weights::Attention;
use crate::kernels::{Isa, MatmulJob, Split, matmul};
use crate::model::AttentionSpec;
use crate::shard::RowRun;

/// Inputs of attention that all threads share.
struct Queries<'a> {
    isa: Isa,
    weights: &'a Attention,
    epsilon: f32,
    shape: AttentionShape,
    angles: Option<&'a Angles>,
    query: &'a [f32],
    /// `[row][head][dimension]`.
    out: Split<'a, f32>,
    kv: KvLayer<'a>,
}

/// A unit of work for one thread: a run of rows and a key-value head.
#[derive(Clone, Copy)]
struct Unit<'a> {
    run: RowRun,
    span: Span<'a>,
}

// === impl Step ===

impl Step<'_> {
    /// `out` = the attention of `input`, in layer number `index` of the shard.
    pub(super) fn attention(&mut self, weights: &Attention, epsilon: f32, kv: &mut KvCache, index: usize) {
        self.project(weights);
        self.write_kv(weights, epsilon, &kv.layer_mut(index));
        self.attend(weights, epsilon, kv.layer(index));
        self.multiply_into_out(&weights.output);
    }

    /// Computes `query`, `key` and `value` from `input`, without their biases.
    fn project(&mut self, weights: &Attention) {
        let rows = self.rows();
        let Arena { input, query, key, value, .. } = &mut *self.arena;
        let mut jobs = [
            MatmulJob { weights: weights.query.matrix(), out: &mut query[..rows * weights.spec.query_width()] },
            MatmulJob { weights: weights.key.matrix(), out: &mut key[..rows * weights.spec.key_width()] },
            MatmulJob { weights: weights.value.matrix(), out: &mut value[..rows * weights.spec.value_width()] },
        ];
        matmul(self.pool, &mut jobs, input);
    }

    /// Writes the tile's keys (with bias, norm and rotation) and values (with bias) to their blocks.
    fn write_kv(&mut self, weights: &Attention, epsilon: f32, kv: &KvLayerMut<'_>) {
        let (isa, spec) = (self.isa, &weights.spec);
        let Arena { key, value, angles, tile, .. } = &mut *self.arena;
        let (key, value) = (Split::new(key), Split::new(value));
        let angles = spec.rope.map(|rope| &angles[rope]);
        let [_, key_bias, value_bias] = &weights.biases;
        let [_, key_norm] = &weights.query_key_norms;
        // Threads divide heads, not rows. Frames may wrongly give two rows the same slot, and then one must be written
        // after the other.
        parallel::heads(self.pool, spec.kv_heads, tile.rows.len(), &|head| {
            for (index, row) in tile.rows.iter().enumerate() {
                let (k, v) = (head * spec.key, head * spec.value);
                let (k_row, v_row) = (index * spec.key_width(), index * spec.value_width());
                // SAFETY: each head of a row is in one part only.
                let key = unsafe { key.part(k_row + k..k_row + k + spec.key) };
                // SAFETY: as above.
                let value = unsafe { value.part(v_row + v..v_row + v + spec.value) };
                if let Some(bias) = key_bias {
                    add(isa, key, &bias[k..k + spec.key]);
                }
                if let Some(bias) = value_bias {
                    add(isa, value, &bias[v..v + spec.value]);
                }
                if let Some(norm) = key_norm {
                    rms_norm_in_place(isa, key, norm, epsilon);
                }
                if let Some(angles) = angles {
                    angles.apply_rope(isa, index, key);
                }
                // SAFETY: each head is in one part only.
                unsafe { kv.write(isa, row.slot, head, key, value) };
            }
        });
    }

    /// Writes the attention result of the tile's queries to `input`.
    fn attend(&mut self, weights: &Attention, epsilon: f32, kv: KvLayer<'_>) {
        let (rows, slices, isa, spec) = (self.rows(), self.slices, self.isa, &weights.spec);
        let Arena { input, query, angles, tile, scratch, chunks, .. } = &mut *self.arena;
        let shape = AttentionShape {
            heads: spec.group(),
            key: spec.key,
            value_padded: padded_value(spec.value),
            window: spec.window,
        };
        let out = Split::new(input.prepare(rows, spec.output_width()));
        let angles = spec.rope.map(|rope| &angles[rope]);
        let attention = Queries { isa, weights, epsilon, shape, angles, query, out, kv };
        let units = tile.runs.len() * spec.kv_heads;
        let unit = |index: usize| {
            // Long histories come first, because they take longest.
            let run = tile.runs[tile.runs.len() - 1 - index / spec.kv_heads];
            let blocks = &slices[run.slice].blocks;
            let kv_head = index % spec.kv_heads;
            Unit { run, span: Span { position: run.position, rows: run.rows, blocks, kv_head } }
        };
        let scratch = Split::new(scratch);

        let pieces: usize = (0..units).map(|index| unit(index).span.chunks(shape.window).len()).sum();
        let few = units < self.pool.threads() * UNITS_PER_THREAD && pieces > units;
        if !few || pieces > chunks.len() || tile.runs.iter().any(|run| run.rows > 1) {
            return parallel::parts(self.pool, units, &|slot, index| {
                // SAFETY: one call at a time has this slot.
                let scratch = unsafe { &mut scratch.part(slot..slot + 1)[0] };
                attention.unit(unit(index), scratch);
            });
        }
        // Few rows with long histories: chunks are computed separately and then merged.
        let sums = Split::new(&mut chunks[..pieces]);
        parallel::parts(self.pool, pieces, &|slot, piece| {
            let (index, chunk, _) = locate(piece, units, |index| unit(index).span.chunks(shape.window));
            // SAFETY: one call at a time has this slot, and each piece has its own sums.
            let (scratch, sums) =
                unsafe { (&mut scratch.part(slot..slot + 1)[0], &mut sums.part(piece..piece + 1)[0]) };
            attention.piece(unit(index), chunk, scratch, sums);
        });
        let mut from = 0;
        for index in 0..units {
            let unit = unit(index);
            let count = unit.span.chunks(shape.window).len();
            // SAFETY: no other thread runs a part now.
            let (scratch, sums) = unsafe { (&mut scratch.part(0..1)[0], sums.part(from..from + count)) };
            merge(isa, shape, shape.heads, sums, &mut scratch.total);
            attention.store_result(unit, &scratch.total);
            from += count;
        }
    }
}

/// Index of the unit of piece number `piece`, the piece's chunk, and the number of the unit's first piece.
fn locate(piece: usize, units: usize, chunks: impl Fn(usize) -> std::ops::Range<usize>) -> (usize, usize, usize) {
    let mut from = 0;
    for index in 0..units {
        let chunks = chunks(index);
        if piece < from + chunks.len() {
            return (index, chunks.start + piece - from, from);
        }
        from += chunks.len();
    }
    unreachable!("pieces are counted by the same units")
}

// === impl Queries ===

impl Queries<'_> {
    fn spec(&self) -> &AttentionSpec {
        &self.weights.spec
    }

    /// Computes a whole unit and writes its result.
    fn unit(&self, unit: Unit<'_>, scratch: &mut Scratch) {
        self.load_queries(unit, scratch);
        attend(self.isa, self.shape, unit.span, self.kv, scratch);
        self.store_result(unit, &scratch.total);
    }

    /// Computes one chunk of a unit and copies its result to `sums`.
    fn piece(&self, unit: Unit<'_>, chunk: usize, scratch: &mut Scratch, sums: &mut Sums) {
        self.load_queries(unit, scratch);
        attend_single_chunk(self.isa, self.shape, unit.span, chunk, self.kv, scratch);
        sums.copy(&scratch.chunk, self.shape.heads, self.shape.value_padded);
    }

    /// Writes the unit's queries, with their bias, norm, rotation and scale, to `scratch`.
    fn load_queries(&self, unit: Unit<'_>, scratch: &mut Scratch) {
        let (spec, group) = (self.spec(), self.shape.heads);
        let [bias, _, _] = &self.weights.biases;
        let [norm, _] = &self.weights.query_key_norms;
        let scale = std::f32::consts::LOG2_E / spec.score_divisor;
        for (index, query) in scratch.queries.chunks_exact_mut(spec.key).take(unit.run.rows * group).enumerate() {
            let row = unit.run.start + index / group;
            let head = (unit.span.kv_head * group + index % group) * spec.key;
            query.copy_from_slice(&self.query[row * spec.query_width() + head..][..spec.key]);
            if let Some(bias) = bias {
                add(self.isa, query, &bias[head..head + spec.key]);
            }
            if let Some(norm) = norm {
                rms_norm_in_place(self.isa, query, norm, self.epsilon);
            }
            if let Some(angles) = self.angles {
                angles.apply_rope(self.isa, row, query);
            }
            for value in query {
                *value *= scale;
            }
        }
    }

    /// Writes the unit's result to the output.
    fn store_result(&self, unit: Unit<'_>, found: &Sums) {
        let (spec, group) = (self.spec(), self.shape.heads);
        for index in 0..unit.run.rows * group {
            let row = unit.run.start + index / group;
            let head = unit.span.kv_head * group + index % group;
            let start = row * spec.output_width() + head * spec.value;
            // SAFETY: each head of a row is in one unit only.
            let out = unsafe { self.out.part(start..start + spec.value) };
            out.copy_from_slice(&found.values[index * self.shape.value_padded..][..spec.value]);
        }
    }
}
