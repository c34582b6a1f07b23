//! Decoders of the formats whose 4 bits choose from a codebook.

use super::Codec;
use crate::kernels::codebook::{E2M1, IQ4};
use crate::kernels::simd::{Simd, WeightLanes, WeightTile, nibbles};

pub(in crate::kernels) struct Iq4Nl;
pub(in crate::kernels) struct Iq4Xs;
pub(in crate::kernels) struct Mxfp4;

impl Codec for Iq4Nl {
    const BLOCKS: usize = 1;
    const BYTES: usize = 18;
    const BYTE_MAX: i32 = 127;
    const WIDE: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        out[0].scale[0] = s.half_to_float(s.pair(tile, at));
        out[0].words = uneven_steps(s, tile, at + 2);
    }
}

impl Codec for Iq4Xs {
    const BLOCKS: usize = 8;
    const BYTES: usize = 136;
    const BYTE_MAX: i32 = 127;
    const WIDE: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        let (first, low) = (s.word(tile, at), s.word(tile, at + 4));
        let (scale, high) = (s.half_to_float(s.and(first, s.splat(0xffff))), s.shr(first, 16));
        for (sub, out) in out.iter_mut().enumerate() {
            let low = s.and(s.shr(low, 4 * sub as u32), s.splat(15));
            let high = s.and(s.shr(high, 2 * sub as u32), s.splat(3));
            let integer = s.sub(s.or(low, s.shl(high, 4)), s.splat(32));
            out.scale[0] = s.mul(scale, s.to_float(integer));
            out.words = uneven_steps(s, tile, at + 8 + 16 * sub);
        }
    }
}

impl Codec for Mxfp4 {
    const BLOCKS: usize = 1;
    const BYTES: usize = 17;
    const BYTE_MAX: i32 = 28;
    const OFFSET: Option<u32> = Some(4);

    #[inline(always)]
    fn unpack<S: Simd>(s: S, tile: WeightTile<'_>, at: usize, out: &mut [WeightLanes<S>]) {
        out[0].scale[0] = e8m0_half(s, s.and(s.pair(tile, at), s.splat(0xff)));
        out[0].words = nibbles(s, tile, at + 1);
        for word in &mut out[0].words {
            *word = s.lookup(&E2M1_BYTES, *word);
        }
    }
}

const IQ4_BYTES: [u8; 16] = raised(IQ4, 0);
const E2M1_BYTES: [u8; 16] = raised(E2M1, 16);

/// The codebook's bytes with `offset` added.
const fn raised(codebook: [i8; 16], offset: i8) -> [u8; 16] {
    let mut raised = [0; 16];
    let mut index = 0;
    while index < 16 {
        raised[index] = (codebook[index] + offset).cast_unsigned();
        index += 1;
    }
    raised
}

// === steps ===

/// The 32 entries of [`IQ4`] that the nibbles of 16 bytes choose.
#[inline(always)]
fn uneven_steps<S: Simd>(s: S, tile: WeightTile<'_>, at: usize) -> [S::Int; 8] {
    let mut words = nibbles(s, tile, at);
    for word in &mut words {
        *word = s.wide(s.lookup(&IQ4_BYTES, *word));
    }
    words
}

/// `2^(bits - 128)`, as the product of two powers: the smallest two are no normal numbers, so their bits have another
/// form.
#[inline(always)]
fn e8m0_half<S: Simd>(s: S, bits: S::Int) -> S::Float {
    let half = s.shr(bits, 1);
    let (low, high) = (s.sub(half, s.splat(-63)), s.sub(s.sub(bits, half), s.splat(-63)));
    s.mul(s.as_float(s.shl(low, 23)), s.as_float(s.shl(high, 23)))
}
