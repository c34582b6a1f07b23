//! Computes one layer for the rows of a tile.

use schema::frame::Slice;

use super::arena::Arena;
use super::kv::KvCache;
use super::math::{add, silu_times};
use super::norm::rms_norm;
use super::parallel;
use super::weights::Layer;
use crate::kernels::Isa;
use crate::kernels::{MatmulJob, Split, ThreadPool, matmul};
use crate::model::ModelConfig;

/// A tile, and the buffers and settings to compute its layers with.
pub(super) struct Step<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) pool: &'a ThreadPool,
    pub(super) isa: Isa,
    /// The slices that the tile's rows come from.
    pub(super) slices: &'a [Slice],
    pub(super) arena: &'a mut Arena,
}

// === impl Step ===

impl Step<'_> {
    /// Runs layer number `index` of the shard. The term still to be added to the residual stream is left in
    /// `arena.out`.
    pub(super) fn layer(&mut self, layer: &Layer, kv: &mut KvCache, index: usize) {
        self.normalise(&layer.attention_norm, index > 0);
        self.project(layer);
        self.write_kv(layer, &kv.layer_mut(index));
        self.attend(layer, kv.layer(index));
        self.multiply_into_out(&layer.attention_output);
        self.normalise(&layer.feed_forward_norm, true);
        self.feed_forward(layer);
        self.multiply_into_out(&layer.down);
    }

    /// Number of rows in the tile.
    pub(super) fn rows(&self) -> usize {
        self.arena.tile.rows.len()
    }

    /// Adds `out` to the residual stream if `pending`, and writes the norm of the stream to `input`.
    fn normalise(&mut self, weight: &[f32], pending: bool) {
        let (rows, hidden, isa, epsilon) = (self.rows(), self.config.hidden, self.isa, self.config.norm_epsilon);
        let Arena { x, input, out, .. } = &mut *self.arena;
        let (x, input, out) = (Split::new(x), Split::new(input.prepare(rows, hidden)), &*out);
        parallel::rows(self.pool, rows, &|range| {
            for row in range {
                let values = row * hidden..(row + 1) * hidden;
                // SAFETY: each row is in one range only.
                let (x, input) = unsafe { (x.part(values.clone()), input.part(values.clone())) };
                if pending {
                    add(isa, x, &out[values]);
                }
                rms_norm(isa, x, weight, epsilon, input);
            }
        });
    }

    /// Computes `query`, `key` and `value` from `input`, without their biases.
    fn project(&mut self, layer: &Layer) {
        let rows = self.rows();
        let Arena { input, query, key, value, .. } = &mut *self.arena;
        let mut jobs = [
            MatmulJob { weights: layer.query.matrix(), out: &mut query[..rows * self.config.query_width()] },
            MatmulJob { weights: layer.key.matrix(), out: &mut key[..rows * self.config.key_width()] },
            MatmulJob { weights: layer.value.matrix(), out: &mut value[..rows * self.config.value_width()] },
        ];
        matmul(self.pool, &mut jobs, input);
    }

    fn multiply_into_out(&mut self, weights: &crate::weights::Tensor) {
        let rows = self.rows();
        let Arena { input, out, .. } = &mut *self.arena;
        let out = &mut out[..rows * self.config.hidden];
        matmul(self.pool, &mut [MatmulJob { weights: weights.matrix(), out }], input);
    }

    /// `input = silu(gate) * up`.
    fn feed_forward(&mut self, layer: &Layer) {
        let (rows, width, isa) = (self.rows(), self.config.feed_forward, self.isa);
        let Arena { input, gate, up, .. } = &mut *self.arena;
        let (gate, up) = (&mut gate[..rows * width], &mut up[..rows * width]);
        let mut jobs = [
            MatmulJob { weights: layer.gate.matrix(), out: &mut *gate },
            MatmulJob { weights: layer.up.matrix(), out: &mut *up },
        ];
        matmul(self.pool, &mut jobs, input);
        let input = Split::new(input.prepare(rows, width));
        parallel::rows(self.pool, rows, &|range| {
            let values = range.start * width..range.end * width;
            // SAFETY: the ranges do not overlap.
            let input = unsafe { input.part(values.clone()) };
            silu_times(isa, &gate[values.clone()], &up[values], input);
        });
    }
}
