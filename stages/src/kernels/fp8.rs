//! Weights that are floats of 8 bits: a sign, 4 bits of exponent, 3 of mantissa, no infinities (E4M3). Every 64 of a
//! row share a scale in single precision, which comes first. They are multiplied in single precision, as other floats.
//!
//! The bits of such a float, moved to the places of a 16-bit float's, are a 256th of its value. `0x7f` and `0xff`,
//! which mean no number, would be 480: weights with them are refused before they get here.

use std::ops::Range;

use half::f16;

use super::block::float_at;
use super::product::Product;
use super::scalar::FLOAT_GROUP;
use super::simd::{MatrixScratch, Simd, WeightTile};
use super::tile::{Units, group_sum, prefetch_next};

/// Values that share a scale.
pub(super) const VALUES: usize = 64;
/// Bytes of a block: the scale, then the values.
pub(super) const BYTES: usize = size_of::<f32>() + VALUES;
/// The value of a float, in parts of the value that its bits have as a 16-bit float.
const OF_HALF: f32 = 256.0;

/// Weights in such blocks.
pub(super) struct Fp8Weights;

/// Value `index` of a row, without its scale.
pub(super) fn unscaled_at(row: &[u8], index: usize) -> f32 {
    let byte = u16::from(row[index / VALUES * BYTES + size_of::<f32>() + index % VALUES]);
    f16::from_bits((byte & 0x80) << 8 | (byte & 0x7f) << 7).to_f32() * OF_HALF
}

/// The scale of value `index` of a row.
pub(super) fn scale_at(row: &[u8], index: usize) -> f32 {
    float_at(row, index / VALUES * BYTES)
}

/// Value `index` of a row.
pub(super) fn value_at(row: &[u8], index: usize) -> f32 {
    unscaled_at(row, index) * scale_at(row, index)
}

impl Units for Fp8Weights {
    const COLS: usize = VALUES;
    const ROW_BYTES: usize = VALUES * size_of::<f32>();

    #[inline(always)]
    fn add<S: Simd>(
        s: S,
        product: &Product<'_>,
        start: usize,
        chunk: &Range<usize>,
        panel: Range<usize>,
        sums: &mut [S::Float],
        _: Option<&mut MatrixScratch<S>>,
    ) {
        let (weights, cols) = (&product.weights, product.x.cols());
        let tile = WeightTile::of(weights, start, S::LANES);
        let x = &product.x.values()[chunk.start * cols..chunk.end * cols];
        for unit in panel {
            let at = unit * BYTES;
            prefetch_next(s, weights, start, unit, BYTES * S::LANES);
            let scale = s.as_float(s.word(tile, at));
            for group in 0..VALUES / FLOAT_GROUP {
                let columns = columns(s, tile, at + size_of::<f32>() + group * FLOAT_GROUP);
                for (x, sum) in x.chunks_exact(cols).zip(&mut *sums) {
                    let x = &x[unit * VALUES + group * FLOAT_GROUP..][..FLOAT_GROUP];
                    *sum = s.fma(group_sum(s, &columns, x.try_into().expect("a group")), scale, *sum);
                }
            }
        }
    }
}

/// The values of one group of columns of a tile, `at` bytes into the rows, without their scales.
#[inline(always)]
fn columns<S: Simd>(s: S, tile: WeightTile<'_>, at: usize) -> [S::Float; FLOAT_GROUP] {
    let mut columns = [s.splat_float(0.0); FLOAT_GROUP];
    let (sign, magnitude, factor) = (s.splat(0x8000), s.splat(0x3f80), s.splat_float(OF_HALF));
    for (word, columns) in s.words(tile, at).into_iter().zip(columns.as_chunks_mut::<4>().0) {
        // The byte in bits 8 to 15: its sign is in place, and the others are one place too high.
        for (column, moved) in columns.iter_mut().zip([s.shl(word, 8), word, s.shr(word, 8), s.shr(word, 16)]) {
            let half = s.or(s.and(moved, sign), s.and(s.shr(moved, 1), magnitude));
            *column = s.mul(s.half_to_float(half), factor);
        }
    }
    columns
}
