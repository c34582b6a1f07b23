//! The quantised formats, vectorised: each unpacks its blocks for a tile of rows into bytes ready to multiply. Knows
//! neither instruction sets nor activations; `block` says in plain code what the same bits mean.
//!
//! Vector steps stand in loops, not in closures handed to `map`: those are not always inlined, and then cost tenfold.
#![expect(clippy::needless_range_loop, reason = "an index here is also a shift, a byte and a place in another array")]

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

/// Blocks of 32 in the largest unit.
pub(super) const UNIT_BLOCKS_MAX: usize = 8;

/// How a format's blocks become lanes.
pub(super) trait Codec {
    /// Blocks of 32 in what the format calls a block.
    const BLOCKS: usize;
    /// Bytes of what the format calls a block.
    const BYTES: usize;
    /// Whether every 16 weights have their own scale.
    const HALVES: bool = false;
    /// Whether there are minimums.
    const MINS: bool = false;
    /// Whether weights take all 8 bits.
    const WIDE: bool = false;
    /// What the words are too large by, as a power of two.
    const OFFSET: Option<u32> = None;

    /// Unpacks the format's block at `at` bytes into the rows.
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]);
}

pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q5_0;
pub(super) struct Q5_1;
pub(super) struct Q8_0;
pub(super) struct Q2K;
pub(super) struct Q3K;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;

// === the 32-value formats ===

impl Codec for Q4_0 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 18;
    const OFFSET: Option<u32> = Some(3);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
        out[0].scale[0] = s.half_to_float(s.pair(tile, at));
        out[0].words = nibbles(s, tile, at + 2);
    }
}

impl Codec for Q4_1 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 20;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
        (out[0].scale[0], out[0].min[0]) = two_halves(s, s.word(tile, at));
        out[0].words = nibbles(s, tile, at + 4);
    }
}

impl Codec for Q5_0 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 22;
    const OFFSET: Option<u32> = Some(4);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
        out[0].scale[0] = s.half_to_float(s.pair(tile, at));
        out[0].words = with_fifth_bits(s, s.word(tile, at + 2), nibbles(s, tile, at + 6));
    }
}

impl Codec for Q5_1 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 24;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
        (out[0].scale[0], out[0].min[0]) = two_halves(s, s.word(tile, at));
        out[0].words = with_fifth_bits(s, s.word(tile, at + 4), nibbles(s, tile, at + 8));
    }
}

impl Codec for Q8_0 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 34;
    const WIDE: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
        out[0].scale[0] = s.half_to_float(s.pair(tile, at));
        for (half, at) in [at + 2, at + 18].into_iter().enumerate() {
            let words = s.words(tile, at);
            for index in 0..4 {
                out[0].words[4 * half + index] = s.wide(words[index]);
            }
        }
    }
}

// === the 256-value formats ===

impl Codec for Q2K {
    const BLOCKS: usize = 8;
    const BYTES: usize = 84;
    const HALVES: bool = true;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
        let (scale, min) = two_halves(s, s.word(tile, at + 80));
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
    const HALVES: bool = true;
    const OFFSET: Option<u32> = Some(2);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
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
    const MINS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
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
    const MINS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
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
    const HALVES: bool = true;
    const OFFSET: Option<u32> = Some(5);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
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
                    let place = 4 * side + index;
                    let upper = [s.shl(high[index], 4), s.shl(high[index], 2), high[index], s.shr(high[index], 2)];
                    for quarter in 0..4 {
                        let value = s.shr(low[quarter % 2][index], 4 * (quarter as u32 / 2));
                        out[4 * half + quarter].words[place] = with_upper_bits(s, value, upper[quarter]);
                    }
                }
            }
        }
    }
}

// === what several formats share ===

/// The low nibbles of 16 bytes, then the high ones.
#[inline(always)]
fn nibbles<S: Simd>(s: S, tile: Tile<'_>, at: usize) -> [S::Int; 8] {
    let [a, b, c, d] = s.words(tile, at);
    let mask = s.splat(0x0f0f_0f0f);
    let [e, f, g, h] = [s.shr(a, 4), s.shr(b, 4), s.shr(c, 4), s.shr(d, 4)];
    let mut words = [a, b, c, d, e, f, g, h];
    for word in &mut words {
        *word = s.and(*word, mask);
    }
    words
}

/// Values of 6 bits: four bits of `low`, and the bits 4 and 5 of `high`.
#[inline(always)]
fn with_upper_bits<S: Simd>(s: S, low: S::Int, high: S::Int) -> S::Int {
    s.or(s.and(low, s.splat(0x0f0f_0f0f)), s.and(high, s.splat(0x3030_3030)))
}

/// Adds 16 where the word of 32 bits has a one.
#[inline(always)]
fn with_fifth_bits<S: Simd>(s: S, bits: S::Int, mut words: [S::Int; 8]) -> [S::Int; 8] {
    let (four, spread, place) = (s.splat(15), s.splat(0x0204_0810), s.splat(0x1010_1010));
    for (index, word) in words.iter_mut().enumerate() {
        // Four copies of four bits, seven apart and four up: bit i of copy i is bit 4 of byte i.
        let copies = s.mul_int(s.and(s.shr(bits, 4 * index as u32), four), spread);
        *word = s.or(*word, s.and(copies, place));
    }
    words
}

/// Two 16-bit floats of a word: the low one, the high one.
#[inline(always)]
fn two_halves<S: Simd>(s: S, word: S::Int) -> (S::Float, S::Float) {
    (s.half_to_float(s.and(word, s.splat(0xffff))), s.half_to_float(s.shr(word, 16)))
}

/// Byte `index` of 16 in every lane.
#[inline(always)]
fn byte<S: Simd>(s: S, words: &[S::Int; 4], index: usize) -> S::Int {
    s.and(s.shr(words[index / 4], 8 * (index % 4) as u32), s.splat(0xff))
}

/// Q4_K and Q5_K: two 16-bit factors, then eight scales and eight minimums of 6 bits in 12 bytes.
#[inline(always)]
fn packed_scales<S: Simd>(s: S, tile: Tile<'_>, at: usize, out: &mut [Lanes<S>; UNIT_BLOCKS_MAX]) {
    let [factors, a, b, c] = s.words(tile, at);
    let (scale, min) = two_halves(s, factors);
    let min = s.neg(min);
    let six = s.splat(0x3f3f_3f3f);
    let scales = [s.and(a, six), with_upper_bits(s, c, s.shr(a, 2)), factors, factors];
    let mins = [s.and(b, six), with_upper_bits(s, s.shr(c, 4), s.shr(b, 2)), factors, factors];
    for sub in 0..8 {
        out[sub].scale[0] = s.mul(scale, s.to_float(byte(s, &scales, sub)));
        out[sub].min[0] = s.mul(min, s.to_float(byte(s, &mins, sub)));
    }
}
