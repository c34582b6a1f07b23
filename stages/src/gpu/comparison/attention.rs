//! Heads' norms and rotation, the writing of keys and values, and attention to them over two splits.

use half::f16;
use schema::SequenceId;
use schema::frame::Slice;
use schema::record::KvType;

use super::{Random, differs, is_close, write_floats};
use crate::gpu::device::{Gpu, GpuError};
use crate::gpu::kernel::Kernel;
use crate::gpu::layer::read_floats;
use crate::gpu::limits::{ROWS_MAX, SPLIT_TOKENS};
use crate::gpu::runner::GpuRunner;
use crate::model::{AttentionSpec, Rope, RopeStyle};
use crate::shard::TOKENS;

/// Tokens of the sequence: one split, and a part of the next.
const SEQUENCE_TOKENS: usize = SPLIT_TOKENS + ROWS_MAX;
/// Largest difference of a result, as a part of one and the largest score: a number midway between two that can be
/// kept may be rounded to either.
const TOLERANCE: f64 = 2e-3;

/// The parts of a row, as matrices make them.
struct Reference<'a> {
    attention: &'a AttentionSpec,
    rope: Option<&'a Rope>,
    /// The weights of the norms of queries and of keys.
    norms: [Option<Vec<f32>>; 2],
    epsilon: f64,
    kv_type: KvType,
    /// Rows of queries, keys and values.
    rows: &'a [f32],
}

impl<G: Gpu> GpuRunner<G> {
    /// Compares the first layer's attention: rows of a sequence are written in tiles, and the results of the last tile
    /// are compared in the first and the last head.
    pub(super) fn compare_attention(&mut self, random: &mut Random) -> Result<(), GpuError> {
        let (step, weights, _) = self.step();
        let kv_type = step.kv_type;
        let Some(layer) = weights.layers.first() else { return Ok(()) };
        let attention = layer.attention;
        let norms = [&layer.query_norm, &layer.key_norm];
        let norms = norms.map(|norm| norm.as_ref().map(|norm| read_floats(norm, attention.key)));
        let epsilon = f64::from(layer.epsilon);
        let blocks = (attention.window.blocks(self.pool()) as usize).min(SEQUENCE_TOKENS / TOKENS);
        if blocks == 0 {
            return Ok(());
        }
        let tokens = (blocks * TOKENS).min(self.sequence_tokens_max());
        let width = attention.query_width() + attention.key_width() + attention.value_width();
        let rows = random.values(tokens * width);
        let table: Vec<u32> = (0..blocks as u32).rev().collect();
        let slice =
            Slice { count: tokens as u32, blocks: table.clone(), window_blocks: table, ..Slice::empty(SequenceId(0)) };
        let slices = [slice];
        let mut last_first = 0;
        for first in (0..tokens).step_by(ROWS_MAX) {
            last_first = first;
            self.set_tile(&slices, first);
            let (mut step, weights, kv) = self.step();
            write_floats(&step.scratch.query_key_value, &rows[first * width..tokens.min(first + ROWS_MAX) * width]);
            step.write_heads(&weights.layers[0], &kv[0])?;
            step.attend(&attention, &kv[0])?;
            step.gpu.finish()?;
        }
        let rope = attention.rope.and_then(|index| self.rope(index));
        let reference = Reference { attention: &attention, rope, norms, epsilon, kv_type, rows: &rows };
        let found = read_floats(self.attended(), (tokens - last_first) * attention.output_width());
        for (row, found) in found.chunks_exact(attention.output_width()).enumerate() {
            for head in [0, attention.heads - 1] {
                let (expected, largest) = reference.attend(last_first + row, head);
                for (at, expected) in expected.into_iter().enumerate() {
                    let found = found[head * attention.value + at];
                    if !is_close(found, expected, TOLERANCE * (1.0 + largest.abs())) {
                        let place = format!(
                            "value {at} of head {head} at position {} (with what write_heads and merge_attention \
                             add to it)",
                            last_first + row
                        );
                        return Err(differs(Kernel::Attend(kv_type), &place, found, expected));
                    }
                }
            }
        }
        Ok(())
    }
}

// === impl Reference ===

impl Reference<'_> {
    /// The result of a head at a position, and its largest score.
    fn attend(&self, position: usize, head: usize) -> (Vec<f64>, f64) {
        let AttentionSpec { heads, kv_heads, key, value, window, score_divisor, .. } = *self.attention;
        let kv_head = head / (heads / kv_heads);
        let query = self.rotated(position, head * key, 0);
        let visible = (position + 1).saturating_sub(window.tokens_max() as usize)..position + 1;
        let score = |token: usize| -> f64 {
            let key = self.kept(self.rotated(token, (heads + kv_head) * key, 1));
            query.iter().zip(key).map(|(query, key)| query * key).sum::<f64>() / f64::from(score_divisor)
        };
        let scores: Vec<f64> = visible.clone().map(score).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut result = vec![0.0; value];
        for (token, weight) in visible.zip(weights) {
            let first = (heads + kv_heads) * key + kv_head * value;
            let values = self.row(token)[first..first + value].iter().map(|value| f64::from(*value)).collect();
            for (result, value) in result.iter_mut().zip(self.kept(values)) {
                *result += weight / sum * value;
            }
        }
        (result, largest)
    }

    fn row(&self, token: usize) -> &[f32] {
        let AttentionSpec { heads, kv_heads, key, value, .. } = *self.attention;
        let width = (heads + kv_heads) * key + kv_heads * value;
        &self.rows[token * width..][..width]
    }

    /// A query or a key from value `first` of the row on, normed and rotated. `kind` is 0 for queries, 1 for keys.
    fn rotated(&self, token: usize, first: usize, kind: usize) -> Vec<f64> {
        let width = self.attention.key;
        let mut values: Vec<f64> =
            self.row(token)[first..first + width].iter().map(|value| f64::from(*value)).collect();
        if let Some(weights) = &self.norms[kind] {
            let mean = values.iter().map(|value| value * value).sum::<f64>() / width as f64;
            let divisor = (mean + self.epsilon).sqrt();
            values.iter_mut().zip(weights).for_each(|(value, weight)| *value *= f64::from(*weight) / divisor);
        }
        let Some(rope) = self.rope else { return values };
        for (pair, frequency) in rope.frequencies().iter().enumerate() {
            let (first, second) = match rope.rope_style() {
                RopeStyle::Halves => (pair, pair + rope.pairs()),
                RopeStyle::Adjacent => (2 * pair, 2 * pair + 1),
            };
            let (sine, cosine) = (token as f64 * frequency).sin_cos();
            let (a, b) = (values[first] * rope.magnitude(), values[second] * rope.magnitude());
            (values[first], values[second]) = (a * cosine - b * sine, a * sine + b * cosine);
        }
        values
    }

    /// A key or a value as it is kept.
    fn kept(&self, mut values: Vec<f64>) -> Vec<f64> {
        match self.kv_type {
            KvType::F16 => values.iter_mut().for_each(|value| *value = f16::from_f64(*value).into()),
            KvType::Q8 => {
                for group in values.chunks_mut(KvType::Q8_BLOCK) {
                    let largest = group.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
                    let scale = f64::from(f16::from_f64(largest / 127.0));
                    let scale = if scale == 0.0 { 1.0 } else { scale };
                    group.iter_mut().for_each(|value| *value = (*value / scale).round().clamp(-127.0, 127.0) * scale);
                }
            }
        }
        values
    }
}
