//! The reference kernel. It computes one output at a time and defines the order of operations. Every other kernel gives
//! the same bits.
//!
//! Quantised weights: the blocks of 32 are added in order. Each adds
//! `fma(float(integer sum), weight scale * row scale, sum)`, then `fma(minimum, row sum, sum)` if the format has
//! minimums. Formats with a scale for every 16 weights do so twice a block. The integer sum is exact, so its order is
//! free. Float weights: groups of 16 columns are added in order. Each is summed by `fma` from zero and then added.
//! Columns past the end of the row count as zero times zero.

use std::ops::Range;

use super::Matrix;
use super::block::{self, DecodedBlock};
use super::dispatch::Product;
use super::rows::Quantised;
use crate::format::Format;

/// Columns in a group of float weights. A group is summed on its own before it is added.
pub(super) const FLOAT_GROUP: usize = 16;

/// One output for quantised weights. `row` yields the blocks of one row of activations.
pub(super) fn dot<'x>(weights: &Matrix<'_>, output: usize, row: impl Iterator<Item = &'x Quantised>) -> f32 {
    let bytes = weights.row(output);
    row.enumerate()
        .fold(0.0, |sum, (index, x)| add_block(weights.format(), &block::read(weights.format(), bytes, index), x, sum))
}

fn add_block(format: Format, weights: &DecodedBlock, x: &Quantised, mut sum: f32) -> f32 {
    let products: [i32; 32] = std::array::from_fn(|index| weights.integers[index] * i32::from(x.bytes[index]));
    let halves = if block::halves(format) { &[(0, 0..16), (1, 16..32)][..] } else { &[(2, 0..32)] };
    for (part, range) in halves {
        let scale = weights.scale[part % 2] * x.scale;
        let integer: i32 = products[range.clone()].iter().sum();
        sum = (integer as f32).mul_add(scale, sum);
        if block::minimums(format) {
            sum = weights.min[part % 2].mul_add(x.sum[*part], sum);
        }
    }
    sum
}

/// One output for float weights.
pub(super) fn dot_floats(weights: &Matrix<'_>, output: usize, row: &[f32]) -> f32 {
    let (bytes, format) = (weights.row(output), weights.format());
    row.chunks(FLOAT_GROUP).enumerate().fold(0.0, |sum, (group, values)| {
        let mut part = 0.0_f32;
        for at in 0..FLOAT_GROUP {
            let index = group * FLOAT_GROUP + at;
            let value = values.get(at).map_or((0.0, 0.0), |value| (block::read_float(format, bytes, index), *value));
            part = value.0.mul_add(value.1, part);
        }
        sum + part
    })
}

/// Computes a range of outputs for all rows. The ranges of two calls for one product must not overlap.
pub(super) fn multiply(product: &Product<'_>, outputs: Range<usize>) {
    let (weights, x) = (&product.weights, product.x);
    for row in 0..x.rows() {
        // SAFETY: the ranges of different calls do not overlap, and rows do not overlap.
        let out = unsafe { product.out(row, outputs.clone()) };
        for (output, out) in outputs.clone().zip(out) {
            *out = if weights.format().block_values() == 1 {
                dot_floats(weights, output, &x.values()[row * x.cols()..][..x.cols()])
            } else {
                let chunk = x.chunks().find(|chunk| chunk.contains(&row)).expect("chunks cover the rows");
                let blocks = x.quantised(&chunk)[row - chunk.start..].iter();
                dot(weights, output, blocks.step_by(chunk.len()))
            };
        }
    }
}
