//! The quantised formats, vectorised: each unpacks its blocks for a tile of rows into bytes ready to multiply. Knows
//! neither instruction sets nor activations; `block` says in plain code what the same bits mean.
//!
//! Vector steps stand in loops, not in closures handed to `map`: those are not always inlined, and then cost tenfold.

mod k;
mod small;

pub(super) use k::PackedFactors;
pub(super) use k::{Q2K, Q3K, Q4K, Q5K, Q6K};
pub(super) use small::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

use super::simd::{Simd, Tile};

/// 32 weights of each row of a tile.
#[derive(Clone, Copy)]
pub(super) struct Lanes<S: Simd> {
    /// Bytes `4 i .. 4 i + 4` of every row, plus the format's offset.
    pub(super) words: [S::Int; 8],
    /// What one step is worth, for either half of 16.
    pub(super) scale: [S::Float; 2],
    /// What is added to every value, for either half.
    pub(super) min: [S::Float; 2],
}

// === impl Lanes ===

impl<S: Simd> Lanes<S> {
    /// All zero, to be overwritten.
    #[inline(always)]
    pub(super) fn zero(s: S) -> Self {
        Self { words: [s.splat(0); 8], scale: [s.splat_float(0.0); 2], min: [s.splat_float(0.0); 2] }
    }
}

/// Blocks of 32 in the largest unit.
pub(super) const UNIT_BLOCKS_MAX: usize = 8;

/// How a block's weights lie in the file.
#[derive(Clone, Copy)]
pub(super) enum Lying {
    /// In 16 bytes from here, the first half in the low nibbles.
    Nibbles(usize),
    /// In 32 signed bytes from here.
    Bytes(usize),
    /// Two blocks in every 32 bytes from here, the first in the low nibbles; scales and minimums are packed.
    Pairs(usize),
    /// In some other way: unpacked before they are multiplied.
    Packed,
}

/// How a format's blocks become lanes.
pub(super) trait Codec {
    /// Blocks of 32 in what the format calls a block.
    const BLOCKS: usize;
    /// Bytes of what the format calls a block.
    const BYTES: usize;
    /// The largest byte a weight is unpacked to, or its magnitude where it has a sign.
    const MOST: i32;
    /// How weights lie that may be multiplied as they are.
    const LYING: Lying = Lying::Packed;
    /// Whether every 16 weights have their own scale.
    const HALVES: bool = false;
    /// Whether there are minimums.
    const MINS: bool = false;
    /// Whether weights take all 8 bits.
    const WIDE: bool = false;
    /// What the words are too large by, as a power of two.
    const OFFSET: Option<u32> = None;

    /// Unpacks the format's block at `at` bytes into the rows; `out` has room for `BLOCKS`.
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>]);

    /// Scale and minimum of the format's block at `at` bytes, where it has one of each; no minimum is zero.
    #[inline(always)]
    fn factors<S: Simd>(s: S, tile: Tile<'_>, at: usize) -> (S::Float, S::Float) {
        if Self::MINS { s.two_halves(tile, at) } else { (s.half_to_float(s.pair(tile, at)), s.splat_float(0.0)) }
    }
}
