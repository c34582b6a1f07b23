//! Grouped attention of a layer: keys and values are written to the KV cache, and queries attend to them.

use super::arena::Arena;
use super::attend::{QueryHeads, TileAttention, Unit};
use super::attention::{AttentionShape, Scratch, Sums};
use super::kv::{KvCache, KvLayer, KvLayerMut, padded_value};
use super::layer::Step;
use super::math::add;
use super::norm::{rms_norm_in_place, unit_norm_in_place};
use super::parallel;
use super::rope::Angles;
use super::weights::Attention;
use crate::kernels::{Isa, MatmulJob, Split, matmul};
use crate::model::{AttentionSpec, QueryKeyNorm};

/// Inputs of attention that all threads share.
struct Queries<'a> {
    isa: Isa,
    weights: &'a Attention,
    finish: HeadFinish<'a>,
    shape: AttentionShape,
    query: &'a [f32],
    /// `[row][head][dimension]`.
    out: Split<'a, f32>,
}

/// The products of attention's input that are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Projected {
    All,
    Queries,
    KeysAndValues,
}

/// The norm of each head of queries or keys.
#[derive(Debug, Clone, Copy)]
enum HeadNorm<'a> {
    None,
    /// Without weights.
    Unit,
    Weighted(&'a [f32]),
}

/// The finishing of a head of queries or keys: its norm and its rotation.
#[derive(Clone, Copy)]
struct HeadFinish<'a> {
    isa: Isa,
    norm: HeadNorm<'a>,
    epsilon: f32,
    after_rope: bool,
    angles: Option<&'a Angles>,
}

/// The norms of each head of queries and of keys.
fn head_norms(weights: &Attention) -> [HeadNorm<'_>; 2] {
    weights.query_key_norms.each_ref().map(|norm| match (weights.spec.query_key_norm, norm) {
        (QueryKeyNorm::UnitHead, _) => HeadNorm::Unit,
        (QueryKeyNorm::Head, Some(norm)) => HeadNorm::Weighted(norm),
        _ => HeadNorm::None,
    })
}

// === impl HeadFinish ===

impl HeadFinish<'_> {
    /// Normalises and rotates a head of row `row`.
    fn finish(&self, row: usize, head: &mut [f32]) {
        if !self.after_rope {
            self.normalise(head);
        }
        if let Some(angles) = self.angles {
            angles.apply_rope(self.isa, row, head);
        }
        if self.after_rope {
            self.normalise(head);
        }
    }

    fn normalise(&self, head: &mut [f32]) {
        match self.norm {
            HeadNorm::None => {}
            HeadNorm::Unit => unit_norm_in_place(self.isa, head, self.epsilon),
            HeadNorm::Weighted(norm) => rms_norm_in_place(self.isa, head, norm, self.epsilon),
        }
    }
}

// === impl Step ===

impl Step<'_> {
    /// `out` = the attention of `input`, in layer number `index` of the shard.
    pub(super) fn attention(&mut self, weights: &Attention, epsilon: f32, kv: &mut KvCache, index: usize) {
        self.project(weights, Projected::All, epsilon);
        self.write_kv(weights, epsilon, &kv.layer_mut(index));
        self.attend_to_out(weights, epsilon, kv.layer(index));
    }

    /// Writes the keys and values of `input`, in layer number `index` of the shard.
    pub(super) fn keys_and_values(&mut self, weights: &Attention, epsilon: f32, kv: &mut KvCache, index: usize) {
        self.project(weights, Projected::KeysAndValues, epsilon);
        self.write_kv(weights, epsilon, &kv.layer_mut(index));
    }

    /// `out` = the attention of `input` to keys and values that are written, in layer number `index` of the shard.
    pub(super) fn queries(&mut self, weights: &Attention, epsilon: f32, kv: &KvCache, index: usize) {
        self.project(weights, Projected::Queries, epsilon);
        self.attend_to_out(weights, epsilon, kv.layer(index));
    }

    fn attend_to_out(&mut self, weights: &Attention, epsilon: f32, kv: KvLayer<'_>) {
        self.attend(weights, epsilon, kv);
        self.multiply_into_out(&weights.output);
        if let Some(bias) = &weights.output_bias {
            self.add_to_out(bias);
        }
    }

    /// Computes `query`, `key` and `value`, or some of them, from `input`, without their biases.
    fn project(&mut self, weights: &Attention, projected: Projected, epsilon: f32) {
        let rows = self.rows();
        let Arena { input, query, key, value, .. } = &mut *self.arena;
        let mut jobs = [
            MatmulJob { weights: weights.query.matrix(), out: &mut query[..rows * weights.spec.query_width()] },
            MatmulJob { weights: weights.key.matrix(), out: &mut key[..rows * weights.spec.key_width()] },
            MatmulJob { weights: weights.value.matrix(), out: &mut value[..rows * weights.spec.value_width()] },
        ];
        // Values that are made by the matrix that makes keys are copies.
        let last = if weights.spec.shared_key_value { 2 } else { 3 };
        let jobs = match projected {
            Projected::All => &mut jobs[..last],
            Projected::Queries => &mut jobs[..1],
            Projected::KeysAndValues => &mut jobs[1..last],
        };
        matmul(self.pool, jobs, input);
        if weights.spec.shared_key_value {
            let values = rows * weights.spec.value_width();
            value[..values].copy_from_slice(&key[..values]);
        }
        if weights.spec.query_key_norm == QueryKeyNorm::Row {
            self.normalise_rows(weights, projected, epsilon);
        }
    }

    /// Normalises the queries and keys of each row, all heads together.
    fn normalise_rows(&mut self, weights: &Attention, projected: Projected, epsilon: f32) {
        let (rows, isa, spec) = (self.rows(), self.isa, &weights.spec);
        let Arena { query, key, .. } = &mut *self.arena;
        let widths = [spec.query_width(), spec.key_width()];
        let skipped = [Projected::KeysAndValues, Projected::Queries];
        let rows_of = [query, key].into_iter().zip(widths).zip(skipped);
        for (((values, width), skipped), norm) in rows_of.zip(&weights.query_key_norms) {
            let Some(norm) = norm.as_ref().filter(|_| projected != skipped) else { continue };
            let values = Split::new(values);
            parallel::rows(self.pool, rows, &|range| {
                for row in range {
                    // SAFETY: each row is in one range only.
                    rms_norm_in_place(isa, unsafe { values.part(row * width..(row + 1) * width) }, norm, epsilon);
                }
            });
        }
    }

    /// Writes the tile's keys (with bias, norm and rotation) and values (with bias and norm) to their blocks.
    fn write_kv(&mut self, weights: &Attention, epsilon: f32, kv: &KvLayerMut<'_>) {
        let (isa, spec) = (self.isa, &weights.spec);
        let Arena { key, value, angles, tile, .. } = &mut *self.arena;
        let (key, value) = (Split::new(key), Split::new(value));
        let angles = spec.rope.map(|rope| &angles[rope]);
        let [_, key_bias, value_bias] = &weights.biases;
        let [_, norm] = head_norms(weights);
        let finish = HeadFinish { isa, norm, epsilon, after_rope: spec.norm_after_rope, angles };
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
                finish.finish(index, key);
                if spec.value_norm {
                    unit_norm_in_place(isa, value, epsilon);
                }
                // SAFETY: each head is in one part only.
                unsafe { kv.write(isa, row.slot_of(spec.window), head, key, value) };
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
            softcap: spec.softcap,
        };
        let out = Split::new(input.prepare(rows, spec.output_width()));
        let angles = spec.rope.map(|rope| &angles[rope]);
        let [norm, _] = head_norms(weights);
        let finish = HeadFinish { isa, norm, epsilon, after_rope: spec.norm_after_rope, angles };
        let queries = Queries { isa, weights, finish, shape, query, out };
        let all = TileAttention { pool: self.pool, isa, slices, tile, kv, shape, parts: spec.kv_heads };
        all.attend(&queries, scratch, chunks);
    }
}

// === impl Queries ===

impl Queries<'_> {
    fn spec(&self) -> &AttentionSpec {
        &self.weights.spec
    }
}

impl QueryHeads for Queries<'_> {
    /// Writes the unit's queries, with their bias, norm, rotation and scale, to `scratch`.
    fn load_queries(&self, unit: Unit, scratch: &mut Scratch) {
        let (spec, group) = (self.spec(), self.shape.heads);
        let [bias, _, _] = &self.weights.biases;
        let scale = std::f32::consts::LOG2_E / spec.score_divisor;
        for (index, query) in scratch.queries.chunks_exact_mut(spec.key).take(unit.run.rows * group).enumerate() {
            let row = unit.run.start + index / group;
            let head = (unit.part * group + index % group) * spec.key;
            query.copy_from_slice(&self.query[row * spec.query_width() + head..][..spec.key]);
            if let Some(bias) = bias {
                add(self.isa, query, &bias[head..head + spec.key]);
            }
            self.finish.finish(row, query);
            // A query that no temperature changes is multiplied once.
            let position = unit.run.position + (index / group) as u32;
            let scale = spec.temperature.map_or(scale, |temperature| scale * temperature.at(position));
            for value in query {
                *value *= scale;
            }
        }
    }

    /// Writes the unit's result to the output.
    fn store_result(&self, unit: Unit, found: &Sums) {
        let (spec, group) = (self.spec(), self.shape.heads);
        for index in 0..unit.run.rows * group {
            let row = unit.run.start + index / group;
            let head = unit.part * group + index % group;
            let start = row * spec.output_width() + head * spec.value;
            // SAFETY: each head of a row is in one unit only.
            let out = unsafe { self.out.part(start..start + spec.value) };
            out.copy_from_slice(&found.values[index * self.shape.value_padded..][..spec.value]);
            if let Some(sinks) = &self.weights.sinks {
                let part = found.part_beside(self.isa, index, sinks[head] * std::f32::consts::LOG2_E);
                out.iter_mut().for_each(|value| *value *= part);
            }
        }
    }
}
