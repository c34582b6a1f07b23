//! The formats with blocks of 32 values.

use super::{Codec, Lanes, UNIT_BLOCKS_MAX, two_halves};
use crate::kernels::simd::{Simd, Tile};

pub(in crate::kernels) struct Q4_0;
pub(in crate::kernels) struct Q4_1;
pub(in crate::kernels) struct Q5_0;
pub(in crate::kernels) struct Q5_1;
pub(in crate::kernels) struct Q8_0;

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
            for (index, word) in s.words(tile, at).into_iter().enumerate() {
                out[0].words[4 * half + index] = s.wide(word);
            }
        }
    }
}

// === steps ===

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
