//! Computes one layer for the rows of a tile.

use schema::frame::Slice;

use super::arena::Arena;
use super::kv::KvCache;
use super::math::{add, silu_times};
use super::norm::rms_norm;
use super::parallel;
use super::weights::{Dense, Layer};
use crate::kernels::Isa;
use crate::kernels::{MatmulJob, Split, ThreadPool, matmul};
use crate::model::{Activation, ModelSpec};
use crate::shard::{FeedForwardTensors, MixerTensors};

/// A tile, and the buffers and settings to compute its layers with.
pub(super) struct Step<'a> {
    pub(super) spec: &'a ModelSpec,
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
        let epsilon = layer.norms.epsilon;
        self.normalise(&layer.mixer_norm, epsilon, index > 0);
        match &layer.mixer {
            MixerTensors::Attention(attention) => self.attention(attention, epsilon, kv, index),
        }
        self.normalise(&layer.feed_forward_norm, epsilon, true);
        match &layer.feed_forward {
            FeedForwardTensors::Dense(dense) => self.dense(dense),
        }
    }

    /// Number of rows in the tile.
    pub(super) fn rows(&self) -> usize {
        self.arena.tile.rows.len()
    }

    /// Adds `out` to the residual stream if `pending`, and writes the norm of the stream to `input`.
    fn normalise(&mut self, weight: &[f32], epsilon: f32, pending: bool) {
        let (rows, hidden, isa) = (self.rows(), self.spec.hidden, self.isa);
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

    pub(super) fn multiply_into_out(&mut self, weights: &crate::weights::Tensor) {
        let rows = self.rows();
        let Arena { input, out, .. } = &mut *self.arena;
        let out = &mut out[..rows * self.spec.hidden];
        matmul(self.pool, &mut [MatmulJob { weights: weights.matrix(), out }], input);
    }

    /// `out = down(activation(gate(input)) * up(input))`.
    fn dense(&mut self, dense: &Dense) {
        let (rows, width, isa) = (self.rows(), dense.spec.width, self.isa);
        let Arena { input, gate, up, .. } = &mut *self.arena;
        let (gate, up) = (&mut gate[..rows * width], &mut up[..rows * width]);
        let mut jobs = [
            MatmulJob { weights: dense.gate.matrix(), out: &mut *gate },
            MatmulJob { weights: dense.up.matrix(), out: &mut *up },
        ];
        matmul(self.pool, &mut jobs, input);
        let input = Split::new(input.prepare(rows, width));
        parallel::rows(self.pool, rows, &|range| {
            let values = range.start * width..range.end * width;
            // SAFETY: the ranges do not overlap.
            let input = unsafe { input.part(values.clone()) };
            match dense.spec.activation {
                Activation::Silu => silu_times(isa, &gate[values.clone()], &up[values], input),
            }
        });
        self.multiply_into_out(&dense.down);
    }
}
