//! Vectorised decoders of the quantised formats. Each unpacks the blocks of a tile of rows into bytes ready to
//! multiply. Knows no instruction sets and no activations. `block` decodes the same bits in plain code.
//!
//! Vector steps are written in loops, not in closures passed to `map`. The compiler does not always inline such
//! closures, and then they cost ten times as much.

mod affine;
mod codebook;
mod grid;
mod k;
mod small;
mod ternary;

pub(super) use affine::{Affine4, Affine8};
pub(super) use codebook::{Iq4Nl, Iq4Xs, Mxfp4};
pub(super) use grid::Grid;
pub(super) use k::PackedFactors;
pub(super) use k::{Q2K, Q3K, Q4K, Q5K, Q6K};
pub(super) use small::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub(super) use ternary::{Tq1_0, Tq2_0};

use super::simd::{Simd, WeightLanes, WeightTile};

/// Blocks of 32 values in the largest block of a format.
pub(super) const UNIT_BLOCKS_MAX: usize = 8;

/// Layout of a block's weights in the file.
#[derive(Clone, Copy)]
pub(super) enum WeightLayout {
    /// From this offset, 16 bytes for each 32 values: the first half in the low nibbles, the second in the high ones.
    Nibbles(usize),
    /// From this offset, a signed byte for each value.
    Bytes(usize),
    /// Two blocks in every 32 bytes from this offset, the first in the low nibbles. Scales and minimums are packed.
    Pairs(usize),
    /// Any other layout. These weights are unpacked before they are multiplied.
    Packed,
}

/// Unpacks the blocks of one format into [`WeightLanes`].
pub(super) trait Codec {
    /// Blocks of 32 values in one block of the format.
    const BLOCKS: usize;
    /// Bytes of one block of the format.
    const BYTES: usize;
    /// Largest byte that a weight is unpacked to, or the largest magnitude if weights are signed.
    const BYTE_MAX: i32;
    /// Layout of the weights, if kernels may multiply them without unpacking.
    const LAYOUT: WeightLayout = WeightLayout::Packed;
    /// True if every 16 weights have their own scale.
    const HALVES: bool = false;
    /// True if the format has minimums.
    const MINS: bool = false;
    /// True if weights take all 8 bits.
    const WIDE: bool = false;
    /// True if weights are 128 more than the signed bytes that they are stored as.
    const UNSIGNED: bool = false;
    /// Offset of the unpacked bytes as a power of two: each byte is its weight plus `2^OFFSET`.
    const OFFSET: Option<u32> = None;

    /// Unpacks the format's block at byte `at` of every row. `out` has room for `BLOCKS` blocks of 32.
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]);

    /// Scale and minimum of the format's block at byte `at`, if it has one of each. The minimum is zero if the format
    /// has none.
    #[inline(always)]
    fn factors<S: Simd>(s: S, tile: WeightTile<'_>, at: usize) -> (S::Float, S::Float) {
        if Self::MINS { s.two_halves(tile, at) } else { (s.half_to_float(s.pair(tile, at)), s.splat_float(0.0)) }
    }
}
