//! Decoders of the formats with blocks of 256 values. Their sub-blocks have separate scales.
#![expect(clippy::needless_range_loop, reason = "an index here is also a shift, a byte and a place in another array")]

use super::{Codec, WeightLayout};
use crate::kernels::simd::{Simd, WeightLanes, WeightTile, split_halves};

pub(in crate::kernels) struct Q2K;
pub(in crate::kernels) struct Q3K;
pub(in crate::kernels) struct Q4K;
pub(in crate::kernels) struct Q5K;
pub(in crate::kernels) struct Q6K;

impl Codec for Q2K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 84;
    const BYTE_MAX: i32 = 3;
    const HALVES: bool = true;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        let (scale, min) = s.two_halves(tile, at + 80);
        let min = s.neg(min);
        let packed = s.words(tile, at);
        for sub in 0..8 {
            for half in 0..2 {
                let both = byte(s, &packed, 2 * sub + half);
                out[sub].scale[half] = s.mul(scale, s.to_float(s.and(both, s.splat(15))));
                out[sub].min[half] = s.mul(min, s.to_float(s.shr(both, 4)));
            }
        }
        let mask = s.splat(0x0303_0303);
        for piece in 0..4 {
            let words = s.words(tile, at + 16 + 16 * piece);
            for shift in 0..4 {
                for index in 0..4 {
                    out[4 * (piece / 2) + shift].words[4 * (piece % 2) + index] =
                        s.and(s.shr(words[index], 2 * shift as u32), mask);
                }
            }
        }
    }
}

impl Codec for Q3K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 110;
    const BYTE_MAX: i32 = 7;
    const HALVES: bool = true;
    const OFFSET: Option<u32> = Some(2);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        let scale = s.half_to_float(s.pair(tile, at + 108));
        let (low, low_too, high) = (s.word(tile, at + 96), s.word(tile, at + 100), s.word(tile, at + 104));
        let two = s.splat(0x0303_0303);
        let packed = [
            with_upper_bits(s, low, s.shl(high, 4)),
            with_upper_bits(s, low_too, s.shl(high, 2)),
            with_upper_bits(s, s.shr(low, 4), high),
            with_upper_bits(s, s.shr(low_too, 4), s.shr(high, 2)),
        ];
        for sub in 0..8 {
            for half in 0..2 {
                let integer = s.sub(byte(s, &packed, 2 * sub + half), s.splat(32));
                out[sub].scale[half] = s.mul(scale, s.to_float(integer));
            }
        }
        for side in 0..2 {
            let high = s.words(tile, at + 16 * side);
            for half in 0..2 {
                let low = s.words(tile, at + 32 + 32 * half + 16 * side);
                for quarter in 0..4 {
                    let sub = 4 * half + quarter;
                    for index in 0..4 {
                        let third = s.and(s.shr(high[index], sub as u32), s.splat(0x0101_0101));
                        let value = s.and(s.shr(low[index], 2 * quarter as u32), two);
                        out[sub].words[4 * side + index] = s.or(value, s.shl(third, 2));
                    }
                }
            }
        }
    }
}

impl Codec for Q4K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 144;
    const BYTE_MAX: i32 = 15;
    const LAYOUT: WeightLayout = WeightLayout::Pairs(16);
    const MINS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        packed_scales(s, tile, at, out);
        let mask = s.splat(0x0f0f_0f0f);
        for piece in 0..8 {
            let (pair, side) = (piece / 2, piece % 2);
            let words = s.words(tile, at + 16 + 16 * piece);
            for index in 0..4 {
                out[2 * pair].words[4 * side + index] = s.and(words[index], mask);
                out[2 * pair + 1].words[4 * side + index] = s.and(s.shr(words[index], 4), mask);
            }
        }
    }
}

impl Codec for Q5K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 176;
    const BYTE_MAX: i32 = 31;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        packed_scales(s, tile, at, out);
        let (mask, one) = (s.splat(0x0f0f_0f0f), s.splat(0x0101_0101));
        for side in 0..2 {
            let high = s.words(tile, at + 16 + 16 * side);
            for pair in 0..4 {
                let low = s.words(tile, at + 48 + 32 * pair + 16 * side);
                for index in 0..4 {
                    for nibble in 0..2 {
                        let sub = 2 * pair + nibble;
                        let fifth = s.shl(s.and(s.shr(high[index], sub as u32), one), 4);
                        let value = s.and(s.shr(low[index], 4 * nibble as u32), mask);
                        out[sub].words[4 * side + index] = s.or(value, fifth);
                    }
                }
            }
        }
    }
}

impl Codec for Q6K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 210;
    const BYTE_MAX: i32 = 63;
    const HALVES: bool = true;
    const OFFSET: Option<u32> = Some(5);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        let scale = s.half_to_float(s.pair(tile, at + 208));
        let packed = s.words(tile, at + 192);
        for sub in 0..8 {
            for half in 0..2 {
                let (word, from) = ((2 * sub + half) / 4, (2 * sub + half) % 4);
                let integer = s.sar(s.shl(packed[word], 24 - 8 * from as u32), 24);
                out[sub].scale[half] = s.mul(scale, s.to_float(integer));
            }
        }
        for half in 0..2 {
            for side in 0..2 {
                let high = s.words(tile, at + 128 + 32 * half + 16 * side);
                let at = at + 64 * half + 16 * side;
                let low = [s.words(tile, at), s.words(tile, at + 32)];
                for index in 0..4 {
                    let word = 4 * side + index;
                    let upper = [s.shl(high[index], 4), s.shl(high[index], 2), high[index], s.shr(high[index], 2)];
                    for quarter in 0..4 {
                        let value = s.shr(low[quarter % 2][index], 4 * (quarter as u32 / 2));
                        out[4 * half + quarter].words[word] = with_upper_bits(s, value, upper[quarter]);
                    }
                }
            }
        }
    }
}

// === steps ===

/// Values of 6 bits: the low four bits from `low`, bits 4 and 5 from `high`.
#[inline(always)]
fn with_upper_bits<S: Simd>(s: S, low: S::Int, high: S::Int) -> S::Int {
    s.or(s.and(low, s.splat(0x0f0f_0f0f)), s.and(high, s.splat(0x3030_3030)))
}

/// Byte `index` of 16 in every lane.
#[inline(always)]
fn byte<S: Simd>(s: S, words: &[S::Int; 4], index: usize) -> S::Int {
    s.and(s.shr(words[index / 4], 8 * (index % 4) as u32), s.splat(0xff))
}

/// Fills in all scales and minimums of a block of Q4_K or Q5_K.
#[inline(always)]
fn packed_scales<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
    let packed = PackedFactors::read(s, tile, at);
    for sub in 0..8 {
        (out[sub].scale[0], out[sub].min[0]) = packed.of(s, sub);
    }
}

// === impl PackedFactors ===

/// Factors of Q4_K and Q5_K: two 16-bit factors, then eight scales and eight minimums of 6 bits in 12 bytes.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct PackedFactors<S: Simd> {
    scale: S::Float,
    min: S::Float,
    /// One scale in each byte.
    scales: [S::Int; 2],
    mins: [S::Int; 2],
}

impl<S: Simd> PackedFactors<S> {
    /// Reads the factors of the block at byte `at`.
    #[inline(always)]
    pub(in crate::kernels) fn read(s: S, tile: WeightTile<'_>, at: usize) -> Self {
        let [factors, a, b, c] = s.words(tile, at);
        let (scale, min) = split_halves(s, factors);
        let six = s.splat(0x3f3f_3f3f);
        Self {
            scale,
            min: s.neg(min),
            scales: [s.and(a, six), with_upper_bits(s, c, s.shr(a, 2))],
            mins: [s.and(b, six), with_upper_bits(s, s.shr(c, 4), s.shr(b, 2))],
        }
    }

    /// Scale and minimum of sub-block `sub`.
    #[inline(always)]
    pub(in crate::kernels) fn of(&self, s: S, sub: usize) -> (S::Float, S::Float) {
        let shift = 8 * (sub % 4) as u32;
        let byte = |words: &[S::Int; 2]| s.and(s.shr(words[sub / 4], shift), s.splat(0xff));
        (s.mul(self.scale, s.to_float(byte(&self.scales))), s.mul(self.min, s.to_float(byte(&self.mins))))
    }
}
