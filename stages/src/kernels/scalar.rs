//! The reference kernel. It computes one output at a time and defines the order of the floating-point operations: every
//! other kernel gives the same bits.
//!
//! Quantised weights: the output starts as `total = 0` and takes the blocks of 32 weights in order. For each block,
//! `total = fma(float(integer product), weight scale * activation scale, total)`, and then, if the format has minimums,
//! `total = fma(weight minimum, sum of the block's activations, total)`. Formats with a scale for every 16 weights do
//! both for the first half of the block and then for the second. The integer product is the dot product of the integer
//! weights and the 8-bit activations. It is exact, so a kernel may add its terms in any order.
//!
//! Float weights: the output takes groups of 16 columns in order. Each group is summed by `fma` from zero, and its sum
//! is then added to the output. Columns past the end of the row count as zero times zero. Floats of 8 bits are
//! multiplied without their scales: a group's sum is added to the output by `fma` with the scale.

use std::ops::Range;

use super::Matrix;
use super::block::{self, DecodedBlock};
use super::fp8;
use super::product::Product;
use super::rows::Quantised;
use crate::format::Format;

/// Columns in a group of float weights. A group is summed on its own before its sum is added to the output.
pub(super) const FLOAT_GROUP: usize = 16;

/// The dot product of row `output` of quantised weights and one row of activations, whose blocks `row` yields in order.
pub(super) fn dot<'x>(weights: &Matrix<'_>, output: usize, row: impl Iterator<Item = &'x Quantised>) -> f32 {
    let bytes = weights.row(output);
    row.enumerate().fold(0.0, |total, (index, x)| {
        add_block(weights.format(), &block::read(weights.format(), bytes, index), x, total)
    })
}

/// Adds one block of weights times the block `x` of activations to `total`.
fn add_block(format: Format, weights: &DecodedBlock, x: &Quantised, mut total: f32) -> f32 {
    let products: [i32; 32] = std::array::from_fn(|index| weights.integers[index] * i32::from(x.bytes[index]));
    // Parts 0 and 1 are the halves, 2 is the whole block: these are the indices of `x.sum`. The two scales and minimums
    // of the weights are equal if the format does not scale the halves, so the whole block uses those of index 0.
    let parts = if block::halves(format) { &[(0, 0..16), (1, 16..32)][..] } else { &[(2, 0..32)] };
    for (part, range) in parts {
        let scale = weights.scale[part % 2] * x.scale;
        let integer: i32 = products[range.clone()].iter().sum();
        total = (integer as f32).mul_add(scale, total);
        if block::minimums(format) {
            total = weights.min[part % 2].mul_add(x.sum[*part], total);
        }
    }
    total
}

/// The dot product of row `output` of float weights and one row of activations.
pub(super) fn dot_floats(weights: &Matrix<'_>, output: usize, row: &[f32]) -> f32 {
    let (bytes, format) = (weights.row(output), weights.format());
    row.chunks(FLOAT_GROUP).enumerate().fold(0.0, |total, (group, values)| {
        let mut group_sum = 0.0_f32;
        for at in 0..FLOAT_GROUP {
            let index = group * FLOAT_GROUP + at;
            let read = |x: &f32| match format {
                Format::F8E4M3 => (fp8::unscaled_at(bytes, index), *x),
                _ => (block::read_float(format, bytes, index), *x),
            };
            let (weight, x) = values.get(at).map_or((0.0, 0.0), read);
            group_sum = weight.mul_add(x, group_sum);
        }
        match format {
            Format::F8E4M3 => group_sum.mul_add(fp8::scale_at(bytes, group * FLOAT_GROUP), total),
            _ => total + group_sum,
        }
    })
}

/// Computes the range `outputs` of the weights' rows for all rows of activations. The ranges of two calls for one
/// product must not overlap.
pub(super) fn multiply(product: &Product<'_>, outputs: Range<usize>) {
    let (weights, x) = (&product.weights, product.x);
    for row in 0..x.rows() {
        // SAFETY: the ranges of different calls do not overlap, and rows do not overlap.
        let out = unsafe { product.out(row, outputs.clone()) };
        for (output, out) in outputs.clone().zip(out) {
            *out = if !weights.format().has_integers() {
                dot_floats(weights, output, &x.values()[row * x.cols()..][..x.cols()])
            } else {
                let chunk = x.chunks().find(|chunk| chunk.contains(&row)).expect("chunks cover the rows");
                // The order is `[block][row]`, so a row's blocks are as far apart as the chunk has rows.
                let blocks = x.quantised(&chunk)[row - chunk.start..].iter();
                dot(weights, output, blocks.step_by(chunk.len()))
            };
        }
    }
}
