//! Decoders of the formats with blocks of 32 values.

use super::{Codec, WeightLayout};
use crate::kernels::simd::{Simd, WeightLanes, WeightTile, nibbles};

pub(in crate::kernels) struct Q4_0;
pub(in crate::kernels) struct Q4_1;
pub(in crate::kernels) struct Q5_0;
pub(in crate::kernels) struct Q5_1;
pub(in crate::kernels) struct Q8_0;

impl Codec for Q4_0 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 18;
    const BYTE_MAX: i32 = 15;
    const OFFSET: Option<u32> = Some(3);
    const LAYOUT: WeightLayout = WeightLayout::Nibbles(2);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        out[0].scale[0] = s.half_to_float(s.pair(tile, at));
        out[0].words = nibbles(s, tile, at + 2);
    }
}

impl Codec for Q4_1 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 20;
    const BYTE_MAX: i32 = 15;
    const MINS: bool = true;
    const LAYOUT: WeightLayout = WeightLayout::Nibbles(4);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        (out[0].scale[0], out[0].min[0]) = s.two_halves(tile, at);
        out[0].words = nibbles(s, tile, at + 4);
    }
}

impl Codec for Q5_0 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 22;
    const BYTE_MAX: i32 = 31;
    const OFFSET: Option<u32> = Some(4);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        out[0].scale[0] = s.half_to_float(s.pair(tile, at));
        out[0].words = with_fifth_bits(s, s.word(tile, at + 2), nibbles(s, tile, at + 6));
    }
}

impl Codec for Q5_1 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 24;
    const BYTE_MAX: i32 = 31;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        (out[0].scale[0], out[0].min[0]) = s.two_halves(tile, at);
        out[0].words = with_fifth_bits(s, s.word(tile, at + 4), nibbles(s, tile, at + 8));
    }
}

impl Codec for Q8_0 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 34;
    const BYTE_MAX: i32 = 128;
    const WIDE: bool = true;
    const LAYOUT: WeightLayout = WeightLayout::Bytes(2);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        out[0].scale[0] = s.half_to_float(s.pair(tile, at));
        for (half, at) in [at + 2, at + 18].into_iter().enumerate() {
            for (index, word) in s.words(tile, at).into_iter().enumerate() {
                out[0].words[4 * half + index] = s.wide(word);
            }
        }
    }
}

// === steps ===

/// Adds 16 to each of the 32 values whose bit in `bits` is one.
#[inline(always)]
fn with_fifth_bits<S: Simd>(s: S, bits: S::Int, mut words: [S::Int; 8]) -> [S::Int; 8] {
    let (four, spread, mask) = (s.splat(15), s.splat(0x0204_0810), s.splat(0x1010_1010));
    for (index, word) in words.iter_mut().enumerate() {
        // Four copies of the four bits, shifted by 4, 11, 18 and 25. Bit i of copy i is bit 4 of byte i.
        let copies = s.mul_int(s.and(s.shr(bits, 4 * index as u32), four), spread);
        *word = s.or(*word, s.and(copies, mask));
    }
    words
}
