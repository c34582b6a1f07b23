//! Decoders of the formats with values of -1, 0 and 1.

use super::Codec;
use crate::kernels::simd::{Simd, WeightLanes, WeightTile};

pub(in crate::kernels) struct Tq1_0;
pub(in crate::kernels) struct Tq2_0;

impl Codec for Tq1_0 {
    const BLOCKS: usize = 8;
    const BYTES: usize = 54;
    const BYTE_MAX: i32 = 2;
    const OFFSET: Option<u32> = Some(0);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        let scale = s.half_to_float(s.pair(tile, at + 52));
        let packed = [s.words(tile, at), s.words(tile, at + 16), s.words(tile, at + 32)];
        let last = s.word(tile, at + 48);
        for (sub, out) in out.iter_mut().enumerate() {
            out.scale[0] = scale;
            for (index, word) in out.words.iter_mut().enumerate() {
                // 32 bytes have five digits of eight words each, 16 bytes five of four, 4 bytes four of one.
                let (packed, digit) = match 8 * sub + index {
                    at @ 0..40 => (packed[at % 8 / 4][at % 4], at / 8),
                    at @ 40..60 => (packed[2][at % 4], (at - 40) / 4),
                    at => (last, at - 60),
                };
                *word = ternary_digits(s, packed, digit as u32);
            }
        }
    }
}

impl Codec for Tq2_0 {
    const BLOCKS: usize = 8;
    const BYTES: usize = 66;
    const BYTE_MAX: i32 = 3;
    const OFFSET: Option<u32> = Some(0);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        let scale = s.half_to_float(s.pair(tile, at + 64));
        for piece in 0..4 {
            let words = s.words(tile, at + 16 * piece);
            for shift in 0..4 {
                let out = &mut out[4 * (piece / 2) + shift];
                out.scale[0] = scale;
                for (index, word) in words.into_iter().enumerate() {
                    out.words[4 * (piece % 2) + index] = s.and(s.shr(word, 2 * shift as u32), s.splat(0x0303_0303));
                }
            }
        }
    }
}

/// Ternary digit `digit` of each byte, as `block` describes it. Every other byte at a time, so that products have 16
/// bits.
#[inline(always)]
fn ternary_digits<S: Simd>(s: S, packed: S::Int, digit: u32) -> S::Int {
    let (bytes, three) = (s.splat(0x00ff_00ff), s.splat(3));
    let power = s.splat(3_i32.pow(digit));
    let (even, odd) = (s.and(packed, bytes), s.and(s.shr(packed, 8), bytes));
    let (even, odd) = (s.and(s.mul_int(even, power), bytes), s.and(s.mul_int(odd, power), bytes));
    let (even, odd) = (s.mul_int(even, three), s.mul_int(odd, three));
    s.or(s.and(s.shr(even, 8), s.splat(0x0003_0003)), s.and(odd, s.splat(0x0300_0300)))
}
