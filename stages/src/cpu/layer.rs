//! Computes one layer for the rows of a tile.

use schema::frame::Slice;

use super::arena::Arena;
use super::kv::KvCache;
use super::math::{add, clamped_swiglu, gelu, gelu_times, silu_times};
use super::norm::{layer_norm_in_place, rms_norm, rms_norm_in_place};
use super::parallel;
use super::touched::TouchedExperts;
use super::weights::{Dense, Layer, Plain};
use crate::kernels::Isa;
use crate::kernels::{MatmulJob, Split, ThreadPool, matmul};
use crate::model::{Activation, ModelSpec};
use crate::shard::{FeedForwardTensors, LayerTensors, MixerTensors, SumNorm};
use crate::weights::Tensor;

/// A tile, and the buffers and settings to compute its layers with.
pub(super) struct Step<'a> {
    pub(super) spec: &'a ModelSpec,
    pub(super) pool: &'a ThreadPool,
    pub(super) isa: Isa,
    /// The slices that the tile's rows come from.
    pub(super) slices: &'a [Slice],
    pub(super) arena: &'a mut Arena,
    pub(super) touched: &'a TouchedExperts,
    /// True if pages of experts may have left memory.
    pub(super) pages_left: bool,
}

// === impl Step ===

impl Step<'_> {
    /// Runs layer number `index` of the shard. The term still to be added to the residual stream is left in
    /// `arena.out`.
    pub(super) fn layer(&mut self, layer: &Layer, kv: &mut KvCache, index: usize) {
        let (key_copy, layer) = (layer.key_copy.as_ref(), &layer.tensors);
        let epsilon = layer.norms.epsilon;
        self.normalise(layer.mixer_norm.as_deref(), epsilon, index > 0);
        match &layer.mixer {
            MixerTensors::Attention(attention) => self.attention(attention, epsilon, kv, index),
            MixerTensors::Latent(latent) => self.latent((latent, key_copy), epsilon, kv, index),
            MixerTensors::ShortConv(conv) => self.short_conv(conv, kv, index),
        }
        self.after_mixer(layer, index);
    }

    /// Runs the part of the layer that comes after the mixer, whose term is in `arena.out`.
    pub(super) fn after_mixer(&mut self, layer: &LayerTensors<Tensor, Vec<f32>>, index: usize) {
        let epsilon = layer.norms.epsilon;
        self.finish_term(layer.mixer_term_norm.as_deref(), epsilon, layer.residual_scale);
        if let Some(norm) = &layer.mixer_sum_norm {
            self.normalise_sum(norm, epsilon);
        }
        self.normalise(layer.feed_forward_norm.as_deref(), epsilon, true);
        match &layer.feed_forward {
            FeedForwardTensors::Dense(dense) => self.dense(dense),
            FeedForwardTensors::Experts(experts) => self.experts(experts, epsilon, index),
            FeedForwardTensors::Plain(plain) => self.plain(plain),
        }
        self.finish_term(layer.feed_forward_term_norm.as_deref(), epsilon, layer.residual_scale);
        if let Some(norm) = &layer.feed_forward_sum_norm {
            self.normalise_sum(norm, epsilon);
        }
        if let Some(&[scale]) = layer.output_scale.as_deref() {
            self.scale_output(scale);
        }
    }

    /// Adds the term to the residual stream and normalises the sum. Leaves a term of zeros.
    fn normalise_sum(&mut self, norm: &SumNorm<Vec<f32>>, epsilon: f32) {
        let (rows, hidden, isa) = (self.rows(), self.spec.hidden, self.isa);
        let Arena { x, out, .. } = &mut *self.arena;
        let (x, out) = (Split::new(x), Split::new(out));
        parallel::rows(self.pool, rows, &|range| {
            for row in range {
                let values = row * hidden..(row + 1) * hidden;
                // SAFETY: each row is in one range only.
                let (x, out) = unsafe { (x.part(values.clone()), out.part(values)) };
                add(isa, x, out);
                layer_norm_in_place(isa, x, &norm.weight, &norm.bias, epsilon);
                out.fill(0.0);
            }
        });
    }

    /// Adds the term to the residual stream and scales the sum. Leaves a term of zeros.
    fn scale_output(&mut self, scale: f32) {
        let (rows, hidden, isa) = (self.rows(), self.spec.hidden, self.isa);
        let Arena { x, out, .. } = &mut *self.arena;
        let (x, out) = (Split::new(x), Split::new(out));
        parallel::rows(self.pool, rows, &|range| {
            let values = range.start * hidden..range.end * hidden;
            // SAFETY: the ranges do not overlap.
            let (x, out) = unsafe { (x.part(values.clone()), out.part(values)) };
            add(isa, x, out);
            x.iter_mut().for_each(|value| *value *= scale);
            out.fill(0.0);
        });
    }

    /// Number of rows in the tile.
    pub(super) fn rows(&self) -> usize {
        self.arena.tile.rows.len()
    }

    /// Adds `out` to the residual stream if `pending`, and writes the norm of the stream to `input`, or the stream
    /// itself in a layer without such a norm.
    pub(super) fn normalise(&mut self, weight: Option<&[f32]>, epsilon: f32, pending: bool) {
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
                match weight {
                    Some(weight) => rms_norm(isa, x, weight, epsilon, input),
                    None => input.copy_from_slice(x),
                }
            }
        });
    }

    /// Normalises and scales `out`, which is to be added to the residual stream, in a model that does so.
    pub(super) fn finish_term(&mut self, norm: Option<&[f32]>, epsilon: f32, scale: f32) {
        if norm.is_none() && scale == 1.0 {
            return;
        }
        let (rows, hidden, isa) = (self.rows(), self.spec.hidden, self.isa);
        let out = Split::new(&mut self.arena.out);
        parallel::rows(self.pool, rows, &|range| {
            for row in range {
                // SAFETY: each row is in one range only.
                let out = unsafe { out.part(row * hidden..(row + 1) * hidden) };
                if let Some(norm) = norm {
                    rms_norm_in_place(isa, out, norm, epsilon);
                }
                out.iter_mut().for_each(|value| *value *= scale);
            }
        });
    }

    pub(super) fn multiply_into_out(&mut self, weights: &Tensor) {
        let rows = self.rows();
        let Arena { input, out, .. } = &mut *self.arena;
        let out = &mut out[..rows * self.spec.hidden];
        matmul(self.pool, &mut [MatmulJob { weights: weights.matrix(), out }], input);
    }

    /// `out = down(activation(gate(input)) * up(input))`.
    pub(super) fn dense(&mut self, dense: &Dense) {
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
            activate(isa, dense.spec.activation, &gate[values.clone()], &up[values], input);
        });
        self.multiply_into_out(&dense.down);
    }
}

impl Step<'_> {
    /// `out = down(gelu(up(input) + bias)) + bias`.
    fn plain(&mut self, plain: &Plain) {
        let (rows, width, isa) = (self.rows(), plain.spec.width, self.isa);
        let Arena { input, up, .. } = &mut *self.arena;
        let up = &mut up[..rows * width];
        matmul(self.pool, &mut [MatmulJob { weights: plain.up.matrix(), out: &mut *up }], input);
        let (up, input) = (Split::new(up), Split::new(input.prepare(rows, width)));
        parallel::rows(self.pool, rows, &|range| {
            for row in range {
                let values = row * width..(row + 1) * width;
                // SAFETY: each row is in one range only.
                let (up, input) = unsafe { (up.part(values.clone()), input.part(values)) };
                add(isa, up, &plain.up_bias);
                input.copy_from_slice(up);
                gelu(isa, input);
            }
        });
        self.multiply_into_out(&plain.down);
        self.add_to_out(&plain.down_bias);
    }

    /// Adds `bias` to each row of `out`.
    pub(super) fn add_to_out(&mut self, bias: &[f32]) {
        let (rows, hidden) = (self.rows(), self.spec.hidden);
        let out = self.arena.out[..rows * hidden].chunks_exact_mut(hidden);
        out.for_each(|row| add(self.isa, row, bias));
    }
}

/// `out = activation(gate) * up`.
pub(super) fn activate(isa: Isa, activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match activation {
        Activation::Silu => silu_times(isa, gate, up, out),
        Activation::Gelu => gelu_times(isa, gate, up, out),
        Activation::ClampedSwiglu { alpha, limit } => clamped_swiglu(isa, [alpha, limit], gate, up, out),
    }
}
