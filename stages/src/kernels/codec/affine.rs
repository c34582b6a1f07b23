//! Decoders of our own formats: groups of 32 to 128 values with a scale and a minimum in single precision. MLX, GPTQ
//! and AWQ have such groups, in other orders.

use super::{Codec, WeightLayout};
use crate::kernels::simd::{Simd, WeightLanes, WeightTile, nibbles};

/// `BLOCKS` blocks of 32 values of 4 bits.
pub(in crate::kernels) struct Affine4<const BLOCKS: usize>;
/// `BLOCKS` blocks of 32 values of 8 bits.
pub(in crate::kernels) struct Affine8<const BLOCKS: usize>;

impl<const BLOCKS: usize> Codec for Affine4<BLOCKS> {
    const BLOCKS: usize = BLOCKS;
    const BYTES: usize = 8 + 16 * BLOCKS;
    const BYTE_MAX: i32 = 15;
    const MINS: bool = true;
    const LAYOUT: WeightLayout = WeightLayout::Nibbles(8);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        let (scale, min) = Self::factors(s, tile, at);
        for (sub, out) in out.iter_mut().enumerate() {
            (out.scale[0], out.min[0]) = (scale, min);
            out.words = nibbles(s, tile, at + 8 + 16 * sub);
        }
    }

    #[inline(always)]
    fn factors<S: Simd>(s: S, tile: WeightTile<'_>, at: usize) -> (S::Float, S::Float) {
        (s.as_float(s.word(tile, at)), s.as_float(s.word(tile, at + 4)))
    }
}

impl<const BLOCKS: usize> Codec for Affine8<BLOCKS> {
    const BLOCKS: usize = BLOCKS;
    const BYTES: usize = 8 + 32 * BLOCKS;
    const BYTE_MAX: i32 = 128;
    const MINS: bool = true;
    const WIDE: bool = true;
    const UNSIGNED: bool = true;
    const LAYOUT: WeightLayout = WeightLayout::Bytes(8);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        let (scale, min) = Self::factors(s, tile, at);
        for (sub, out) in out.iter_mut().enumerate() {
            (out.scale[0], out.min[0]) = (scale, min);
            for half in 0..2 {
                let words = s.words(tile, at + 8 + 32 * sub + 16 * half);
                for (index, word) in words.into_iter().enumerate() {
                    out.words[4 * half + index] = s.wide(word);
                }
            }
        }
    }

    #[inline(always)]
    fn factors<S: Simd>(s: S, tile: WeightTile<'_>, at: usize) -> (S::Float, S::Float) {
        (s.as_float(s.word(tile, at)), s.as_float(s.word(tile, at + 4)))
    }
}
