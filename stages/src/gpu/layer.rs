//! Encodes one layer for the rows of a tile: nine launches, if queries, keys and values have one format.

use super::device::{DeviceBuffer, Gpu, GpuError};
use super::inputs::TileInputs;
use super::kernel::{Kernel, RowsAtOnce};
use super::kv::LayerKv;
use super::launch::{Launch, View};
use super::scratch::Scratch;
use super::weights::{DeviceMatrix, Layer, MatrixGroup};
use crate::model::{Activation, AttentionSpec, Rope, RopeStyle};

/// Flags of `kernels/product.h`.
const WITH_BIAS: u32 = 1;
const ADD_TO_OUT: u32 = 2;
/// Flags of `kernels/heads.h`.
const NORM_QUERIES: u32 = 1;
const NORM_KEYS: u32 = 2;
const PAIRS_OF_HALVES: u32 = 4;

/// A tile while its launches are encoded.
pub(super) struct Step<'a, G: Gpu> {
    pub(super) gpu: &'a mut G,
    pub(super) inputs: &'a TileInputs<G::Buffer>,
    pub(super) scratch: &'a Scratch<G::Buffer>,
    pub(super) ropes: &'a [Rope],
    pub(super) kv_type: schema::record::KvType,
    /// Number of rows.
    pub(super) rows: usize,
    /// Splits of attention up to the last of their positions.
    pub(super) splits: u32,
    /// Values in a row.
    pub(super) hidden: usize,
}

/// A product of rows with matrices, apart from the matrices.
pub(super) struct Product<'a, B> {
    /// Rows of activations, and their number.
    pub(super) input: &'a B,
    pub(super) rows: usize,
    /// Added to the outputs of each row.
    pub(super) bias: Option<&'a B>,
    pub(super) out: &'a B,
    /// Values from one row of outputs to the next.
    pub(super) out_stride: usize,
    /// True if products are added to what `out` holds.
    pub(super) add: bool,
}

// === impl Step ===

impl<G: Gpu> Step<'_, G> {
    /// Encodes a layer. The residual stream is read and written in place.
    ///
    /// # Errors
    /// As [`Gpu::encode`].
    pub(super) fn layer(&mut self, layer: &Layer<G::Buffer>, kv: &LayerKv<G::Buffer>) -> Result<(), GpuError> {
        let scratch = self.scratch;
        let attention = &layer.attention;
        let width = attention.query_width() + attention.key_width() + attention.value_width();
        self.norm(&self.inputs.all_rows, self.rows, &layer.mixer_norm, layer.epsilon)?;
        for group in &layer.query_key_value {
            let (bias, out) = (layer.bias.as_ref(), &scratch.query_key_value);
            let input = &scratch.normed;
            self.multiply(group, &Product { input, rows: self.rows, bias, out, out_stride: width, add: false })?;
        }
        self.write_heads(layer, kv)?;
        self.attend(attention, kv)?;
        let (out, out_stride, rows) = (&scratch.stream, self.hidden, self.rows);
        let input = &scratch.attended;
        self.multiply(&layer.output, &Product { input, rows, bias: None, out, out_stride, add: true })?;
        self.norm(&self.inputs.all_rows, self.rows, &layer.feed_forward_norm, layer.epsilon)?;
        self.gate(&layer.gate, &layer.up, layer.activation)?;
        let input = &scratch.gated;
        self.multiply(&layer.down, &Product { input, rows, bias: None, out, out_stride, add: true })
    }

    /// Norms the rows of the residual stream that `rows_at` names.
    pub(super) fn norm(
        &mut self,
        rows_at: &G::Buffer,
        rows: usize,
        weights: &G::Buffer,
        epsilon: f32,
    ) -> Result<(), GpuError> {
        let Scratch { stream, normed, .. } = self.scratch;
        self.gpu.encode(&Launch {
            kernel: Kernel::RmsNorm,
            groups: [rows as u32, 1, 1],
            inputs: &[stream.into(), rows_at.into(), weights.into()],
            outputs: &[normed.into()],
            sizes: &[self.hidden as u32, epsilon.to_bits()],
        })
    }

    /// Multiplies rows with the matrices of a group.
    pub(super) fn multiply(
        &mut self,
        group: &MatrixGroup<G::Buffer>,
        product: &Product<'_, G::Buffer>,
    ) -> Result<(), GpuError> {
        let MatrixGroup { out_first, matrices } = group;
        let none = View::from(&self.scratch.none);
        let matrix = |index: usize| matrices.get(index).map_or(none, DeviceMatrix::view);
        let outputs = [0, 1, 2].map(|index| matrices.get(index).map_or(0, |matrix| matrix.rows as u32));
        let first = &matrices[0];
        let at_once = RowsAtOnce::of(product.rows);
        let bias = product.bias.map_or(none, |buffer| View { buffer, offset: size_of::<f32>() * out_first });
        let flags = if product.bias.is_some() { WITH_BIAS } else { 0 } | if product.add { ADD_TO_OUT } else { 0 };
        let outputs_of_group = Kernel::OUTPUTS_OF_GROUP as u32;
        self.gpu.encode(&Launch {
            kernel: Kernel::Product(first.format, at_once),
            groups: [outputs.iter().sum::<u32>().div_ceil(outputs_of_group), at_once.groups(product.rows), 1],
            inputs: &[product.input.into(), matrix(0), matrix(1), matrix(2), bias],
            outputs: &[product.out.into()],
            sizes: &[
                first.cols as u32,
                first.row_bytes() as u32,
                product.rows as u32,
                outputs[0],
                outputs[1],
                outputs[2],
                product.out_stride as u32,
                *out_first as u32,
                flags,
            ],
        })
    }

    pub(super) fn write_heads(&mut self, layer: &Layer<G::Buffer>, kv: &LayerKv<G::Buffer>) -> Result<(), GpuError> {
        let attention = &layer.attention;
        let Scratch { query_key_value, queries, none, .. } = self.scratch;
        let inputs = self.inputs.of(attention.window);
        let rope = attention.rope.and_then(|index| Some((self.ropes.get(index)?, self.inputs.angles(index)?)));
        let mut flags = 0;
        flags |= if layer.query_norm.is_some() { NORM_QUERIES } else { 0 };
        flags |= if layer.key_norm.is_some() { NORM_KEYS } else { 0 };
        let halves = rope.is_some_and(|(rope, _)| rope.rope_style() == RopeStyle::Halves);
        flags |= if halves { PAIRS_OF_HALVES } else { 0 };
        let read = [
            View::from(query_key_value),
            rope.map_or(none, |(_, angles)| angles).into(),
            (&inputs.slots).into(),
            layer.query_norm.as_ref().unwrap_or(none).into(),
            layer.key_norm.as_ref().unwrap_or(none).into(),
        ];
        let mut written = vec![View::from(queries), (&kv.keys).into(), (&kv.values).into()];
        written.extend(kv.scales.iter().flatten().map(View::from));
        self.gpu.encode(&Launch {
            kernel: Kernel::WriteHeads(self.kv_type),
            groups: [(attention.heads + 2 * attention.kv_heads) as u32, self.rows as u32, 1],
            inputs: &read,
            outputs: &written,
            sizes: &[
                attention.heads as u32,
                attention.kv_heads as u32,
                attention.key as u32,
                attention.value as u32,
                rope.map_or(0, |(rope, _)| rope.pairs() as u32),
                flags,
                layer.epsilon.to_bits(),
                attention.score_divisor.recip().to_bits(),
            ],
        })
    }

    pub(super) fn attend(&mut self, attention: &AttentionSpec, kv: &LayerKv<G::Buffer>) -> Result<(), GpuError> {
        let Scratch { queries, parts, attended, splits, .. } = self.scratch;
        let inputs = self.inputs.of(attention.window);
        let sizes = [
            attention.heads as u32,
            attention.kv_heads as u32,
            attention.key as u32,
            attention.value as u32,
            attention.window.tokens_max(),
            *splits as u32,
        ];
        let heads_and_rows = [attention.heads as u32, self.rows as u32];
        let mut read = vec![View::from(queries), (&inputs.rows).into(), (&inputs.table).into()];
        read.extend([View::from(&kv.keys), View::from(&kv.values)]);
        read.extend(kv.scales.iter().flatten().map(View::from));
        self.gpu.encode(&Launch {
            kernel: Kernel::Attend(self.kv_type),
            groups: [heads_and_rows[0], heads_and_rows[1], self.splits],
            inputs: &read,
            outputs: &[parts.into()],
            sizes: &sizes,
        })?;
        self.gpu.encode(&Launch {
            kernel: Kernel::MergeAttention,
            groups: [heads_and_rows[0], heads_and_rows[1], 1],
            inputs: &[parts.into(), (&inputs.rows).into()],
            outputs: &[attended.into()],
            sizes: &sizes,
        })
    }

    pub(super) fn gate(
        &mut self,
        gate: &DeviceMatrix<G::Buffer>,
        up: &DeviceMatrix<G::Buffer>,
        activation: Activation,
    ) -> Result<(), GpuError> {
        let Scratch { normed, gated, .. } = self.scratch;
        let at_once = RowsAtOnce::of(self.rows);
        self.gpu.encode(&Launch {
            kernel: Kernel::Gated(gate.format, at_once),
            groups: [(gate.rows as u32).div_ceil(Kernel::OUTPUTS_OF_GROUP as u32), at_once.groups(self.rows), 1],
            inputs: &[normed.into(), gate.view(), up.view()],
            outputs: &[gated.into()],
            sizes: &[
                gate.cols as u32,
                gate.row_bytes() as u32,
                self.rows as u32,
                gate.rows as u32,
                u32::from(activation != Activation::Silu),
            ],
        })
    }

    /// Chooses a token after each of the first `rows` rows of logits, by its rule.
    pub(super) fn choose_tokens(&mut self, rows: usize, vocabulary: usize) -> Result<(), GpuError> {
        let Scratch { logits, rules, chosen, .. } = self.scratch;
        self.gpu.encode(&Launch {
            kernel: Kernel::ChooseToken,
            groups: [rows as u32, 1, 1],
            inputs: &[logits.into(), rules.into()],
            outputs: &[chosen.into()],
            sizes: &[vocabulary as u32],
        })
    }

    /// Marks the rows of `values` that are not finite numbers.
    pub(super) fn find_unusable(&mut self, values: &G::Buffer, rows: usize, width: usize) -> Result<(), GpuError> {
        self.gpu.encode(&Launch {
            kernel: Kernel::FindUnusable,
            groups: [rows as u32, 1, 1],
            inputs: &[values.into()],
            outputs: &[(&self.scratch.unusable).into()],
            sizes: &[width as u32],
        })
    }
}

/// The first `count` numbers of a buffer.
pub(super) fn read_numbers<B: DeviceBuffer>(buffer: &B, count: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * count];
    buffer.read(0, &mut bytes);
    bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

/// The same as floats.
pub(super) fn read_floats<B: DeviceBuffer>(buffer: &B, count: usize) -> Vec<f32> {
    read_numbers(buffer, count).into_iter().map(f32::from_bits).collect()
}
