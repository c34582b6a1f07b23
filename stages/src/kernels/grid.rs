//! Decodes the formats whose indices choose points of a grid: IQ2, IQ3 and IQ1. An index stands for eight values, or
//! for four, and signs and scales are stored apart from it. `block` and `codec` both read them here, one row at a time,
//! because points are looked up and not computed. Knows no instruction sets.
//!
//! The layouts and the points are facts of the GGUF format as ggml writes it (`ggml-common.h`, `ggml-quants.c`).

mod points;

use super::block::half_at;

/// 32 weights: `value = scale * integer`, with a scale for each half of 16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct GridBlock {
    pub(super) integers: [i8; 32],
    pub(super) scale: [f32; 2],
}

/// A format with blocks of 256 values, whose indices choose points of a grid.
pub(super) trait GridFormat {
    /// Bytes of one block.
    const BYTES: usize;
    /// True if every 16 weights have their own scale.
    const HALVES: bool = false;

    /// Values `32 * sub..32 * sub + 32` of the block `unit`.
    fn decode(unit: &[u8], sub: usize) -> GridBlock;
}

pub(super) struct Iq2Xxs;
pub(super) struct Iq2Xs;
pub(super) struct Iq2S;
pub(super) struct Iq3Xxs;
pub(super) struct Iq3S;
pub(super) struct Iq1S;
pub(super) struct Iq1M;

impl GridFormat for Iq2Xxs {
    const BYTES: usize = 66;

    /// Four indices of 8 bits, then four times 7 bits of signs and a scale of 4 bits.
    fn decode(unit: &[u8], sub: usize) -> GridBlock {
        let indices = &unit[2 + 8 * sub..];
        let rest = word_at(unit, 6 + 8 * sub);
        let eight = |at: usize| signed(IQ2_XXS[usize::from(indices[at])], even_signs(rest >> (7 * at)));
        let scale = half_at(unit, 0) * (0.5 + (rest >> 28) as f32) * 0.25;
        GridBlock { integers: joined([0, 1, 2, 3].map(eight)), scale: [scale; 2] }
    }
}

impl GridFormat for Iq2Xs {
    const BYTES: usize = 74;
    const HALVES: bool = true;

    /// Four times an index of 9 bits and 7 bits of signs; scales of 4 bits at the end.
    fn decode(unit: &[u8], sub: usize) -> GridBlock {
        let eight = |at: usize| {
            let index = pair_at(unit, 2 + 8 * sub + 2 * at);
            signed(IQ2_XS[usize::from(index & 511)], even_signs(u32::from(index >> 9)))
        };
        GridBlock { integers: joined([0, 1, 2, 3].map(eight)), scale: iq2_scales(unit, unit[66 + sub]) }
    }
}

impl GridFormat for Iq2S {
    const BYTES: usize = 82;
    const HALVES: bool = true;

    /// The low 8 bits of all indices, all signs, the upper 2 bits of the indices, then scales of 4 bits.
    fn decode(unit: &[u8], sub: usize) -> GridBlock {
        let eight = |at: usize| {
            let index = u16::from(unit[2 + 4 * sub + at]) | u16::from(unit[66 + sub] >> (2 * at) & 3) << 8;
            signed(IQ2_S[usize::from(index)], unit[34 + 4 * sub + at])
        };
        GridBlock { integers: joined([0, 1, 2, 3].map(eight)), scale: iq2_scales(unit, unit[74 + sub]) }
    }
}

impl GridFormat for Iq3Xxs {
    const BYTES: usize = 98;

    /// Eight indices of 8 bits. After those of all sub-blocks, four times 7 bits of signs and a scale of 4 bits.
    fn decode(unit: &[u8], sub: usize) -> GridBlock {
        let indices = &unit[2 + 8 * sub..];
        let rest = word_at(unit, 66 + 4 * sub);
        let eight = |at: usize| {
            let fours = [0, 1].map(|half| IQ3_XXS[usize::from(indices[2 * at + half])]);
            signed(both(fours), even_signs(rest >> (7 * at)))
        };
        let scale = half_at(unit, 0) * (0.5 + (rest >> 28) as f32) * 0.5;
        GridBlock { integers: joined([0, 1, 2, 3].map(eight)), scale: [scale; 2] }
    }
}

impl GridFormat for Iq3S {
    const BYTES: usize = 110;

    /// The low 8 bits of all indices, their ninth bits, all signs, then scales of 4 bits.
    fn decode(unit: &[u8], sub: usize) -> GridBlock {
        let eight = |at: usize| {
            let fours = [2 * at, 2 * at + 1].map(|at| {
                let index = u16::from(unit[2 + 8 * sub + at]) | u16::from(unit[66 + sub] >> at & 1) << 8;
                IQ3_S[usize::from(index)]
            });
            signed(both(fours), unit[74 + 4 * sub + at])
        };
        let integer = unit[106 + sub / 2] >> (4 * (sub % 2)) & 15;
        let scale = half_at(unit, 0) * f32::from(1 + 2 * integer);
        GridBlock { integers: joined([0, 1, 2, 3].map(eight)), scale: [scale; 2] }
    }
}

impl GridFormat for Iq1S {
    const BYTES: usize = 50;

    /// The low 8 bits of all indices, then for each sub-block the upper 3 bits of its four, a scale of 3 bits, and the
    /// sign of the shift.
    fn decode(unit: &[u8], sub: usize) -> GridBlock {
        let rest = pair_at(unit, 34 + 2 * sub);
        let eight = |at: usize| {
            let index = u16::from(unit[2 + 4 * sub + at]) | (rest >> (3 * at) & 7) << 8;
            shifted(IQ1[usize::from(index)], rest & 0x8000 != 0)
        };
        let scale = half_at(unit, 0) * iq1_factor(rest >> 12);
        GridBlock { integers: joined([0, 1, 2, 3].map(eight)), scale: [scale; 2] }
    }
}

impl GridFormat for Iq1M {
    const BYTES: usize = 56;
    const HALVES: bool = true;

    /// The low 8 bits of all indices, then 4 bits for each: its upper 3 bits and the sign of the shift. Then 4 pairs of
    /// bytes with four scales of 3 bits each, whose last bits together are the factor of the scales.
    fn decode(unit: &[u8], sub: usize) -> GridBlock {
        let eight = |at: usize| {
            let rest = unit[32 + 2 * sub + at / 2] >> (4 * (at % 2));
            let index = u16::from(unit[4 * sub + at]) | u16::from(rest & 7) << 8;
            shifted(IQ1[usize::from(index)], rest & 8 != 0)
        };
        let pairs = [48, 50, 52, 54].map(|at| pair_at(unit, at));
        let factor = pairs[0] >> 12 | pairs[1] >> 8 & 0xf0 | pairs[2] >> 4 & 0xf00 | pairs[3] & 0xf000;
        let factor = half_at(&factor.to_le_bytes(), 0);
        let scales = pairs[sub / 2] >> (6 * (sub % 2));
        let scale = [0, 3].map(|bits| factor * iq1_factor(scales >> bits));
        GridBlock { integers: joined([0, 1, 2, 3].map(eight)), scale }
    }
}

// === points ===

static IQ2_XXS: [[i8; 8]; 256] = expanded(&points::IQ2_XXS, IQ2_LEVELS);
static IQ2_XS: [[i8; 8]; 512] = expanded(&points::IQ2_XS, IQ2_LEVELS);
static IQ2_S: [[i8; 8]; 1024] = expanded(&points::IQ2_S, IQ2_LEVELS);
static IQ3_XXS: [[i8; 4]; 256] = expanded(&points::IQ3_XXS, [4, 12, 20, 28, 36, 44, 52, 62]);
static IQ3_S: [[i8; 4]; 512] = expanded(&points::IQ3_S, [1, 3, 5, 7, 9, 11, 13, 15]);
static IQ1: [[i8; 8]; 2048] = expanded(&points::IQ1_S, [-IQ1_STEP, 0, IQ1_STEP]);

const IQ2_LEVELS: [i8; 3] = [8, 25, 43];

/// IQ1's values are -1, 0 and 1, shifted by an eighth up or down. In eighths they are integers.
const IQ1_STEP: i8 = 8;

/// The points with `levels` in the place of the indices, which have 2 bits for 8 coordinates and 4 for 4.
const fn expanded<const COORDINATES: usize, const LEVELS: usize, const POINTS: usize>(
    points: &[u16; POINTS],
    levels: [i8; LEVELS],
) -> [[i8; COORDINATES]; POINTS] {
    let bits = 16 / COORDINATES;
    let mut expanded = [[0; COORDINATES]; POINTS];
    let mut point = 0;
    while point < POINTS {
        let mut at = 0;
        while at < COORDINATES {
            expanded[point][at] = levels[(points[point] >> (bits * at)) as usize & ((1 << bits) - 1)];
            at += 1;
        }
        point += 1;
    }
    expanded
}

// === steps ===

/// The scales of IQ2_XS and IQ2_S: the factor at the start of the block, and 4 bits for each half.
fn iq2_scales(unit: &[u8], packed: u8) -> [f32; 2] {
    [packed & 15, packed >> 4].map(|integer| half_at(unit, 0) * (0.5 + f32::from(integer)) * 0.25)
}

/// The integer scale of IQ1 in the lowest 3 bits, for integers in eighths.
fn iq1_factor(bits: u16) -> f32 {
    f32::from(2 * (bits & 7) + 1) / f32::from(IQ1_STEP)
}

/// All eight signs from the lowest 7 bits: the number of negative values is even.
fn even_signs(bits: u32) -> u8 {
    let seven = bits as u8 & 127;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// Negates the values whose bit is one.
#[inline(always)]
fn signed(mut point: [i8; 8], signs: u8) -> [i8; 8] {
    for (at, value) in point.iter_mut().enumerate() {
        let negative = -((signs >> at & 1).cast_signed());
        *value = (*value ^ negative) - negative;
    }
    point
}

/// IQ1's shift by an eighth.
#[inline(always)]
fn shifted(mut point: [i8; 8], down: bool) -> [i8; 8] {
    let shift = if down { -1 } else { 1 };
    for value in &mut point {
        *value += shift;
    }
    point
}

fn both([low, high]: [[i8; 4]; 2]) -> [i8; 8] {
    let [a, b, c, d] = low;
    let [e, f, g, h] = high;
    [a, b, c, d, e, f, g, h]
}

fn joined(eights: [[i8; 8]; 4]) -> [i8; 32] {
    let mut integers = [0; 32];
    integers.as_chunks_mut().0.copy_from_slice(&eights);
    integers
}

fn pair_at(unit: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([unit[at], unit[at + 1]])
}

fn word_at(unit: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([unit[at], unit[at + 1], unit[at + 2], unit[at + 3]])
}
