//! Decodes ggml blocks in plain code, one block of 32 values at a time. Every kernel is tested against this form. Knows
//! no matrices and no activations.
//!
//! The layouts are facts of the GGUF format as ggml writes it (`ggml-common.h`, `ggml-quants.c`), except for those of
//! `AFFINE` formats, which are our own.

use half::{bf16, f16};

use super::codebook::{E2M1, IQ4, e8m0_half};
use super::fp8;
use super::grid::{self, GridBlock, GridFormat};
use crate::format::Format;

/// 32 weights: `value = scale * integer + min`. Each half of 16 weights has its own scale and minimum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DecodedBlock {
    pub(super) integers: [i32; 32],
    pub(super) scale: [f32; 2],
    pub(super) min: [f32; 2],
}

/// True if the halves of a block have separate scales.
pub(super) fn halves(format: Format) -> bool {
    let with_grid = matches!(format, Format::Iq2Xs | Format::Iq2S | Format::Iq1M);
    with_grid || matches!(format, Format::Q2K | Format::Q3K | Format::Q6K)
}

/// True if the format has minimums.
pub(super) fn minimums(format: Format) -> bool {
    let of_groups = matches!(format, Format::Affine4G32 | Format::Affine4G64 | Format::Affine4G128);
    let of_groups = of_groups || matches!(format, Format::Affine8G32 | Format::Affine8G64);
    of_groups || matches!(format, Format::Q4_1 | Format::Q5_1 | Format::Q2K | Format::Q4K | Format::Q5K)
}

/// Block `index` (of 32 values) of a row in a quantised format.
///
/// # Panics
/// If the row has no such block, or the format is not quantised.
pub(super) fn read(format: Format, row: &[u8], index: usize) -> DecodedBlock {
    let per_unit = format.block_values() / 32;
    let unit = &row[index / per_unit * format.block_bytes()..][..format.block_bytes()];
    let sub = index % per_unit;
    match format {
        Format::Q4_0 => q4_0(unit),
        Format::Q4_1 => q4_1(unit),
        Format::Q5_0 => q5_0(unit),
        Format::Q5_1 => q5_1(unit),
        Format::Q8_0 => q8_0(unit),
        Format::Q2K => q2_k(unit, sub),
        Format::Q3K => q3_k(unit, sub),
        Format::Q4K => q4_k(unit, sub),
        Format::Q5K => q5_k(unit, sub),
        Format::Q6K => q6_k(unit, sub),
        Format::Iq4Nl => iq4_nl(unit),
        Format::Iq4Xs => iq4_xs(unit, sub),
        Format::Mxfp4 => mxfp4(unit),
        Format::Tq1_0 => tq1_0(unit, sub),
        Format::Tq2_0 => tq2_0(unit, sub),
        Format::Iq2Xxs => grid::Iq2Xxs::decode(unit, sub).into(),
        Format::Iq2Xs => grid::Iq2Xs::decode(unit, sub).into(),
        Format::Iq2S => grid::Iq2S::decode(unit, sub).into(),
        Format::Iq3Xxs => grid::Iq3Xxs::decode(unit, sub).into(),
        Format::Iq3S => grid::Iq3S::decode(unit, sub).into(),
        Format::Iq1S => grid::Iq1S::decode(unit, sub).into(),
        Format::Iq1M => grid::Iq1M::decode(unit, sub).into(),
        Format::Affine4G32 | Format::Affine4G64 | Format::Affine4G128 => affine4(unit, sub),
        Format::Affine8G32 | Format::Affine8G64 => affine8(unit, sub),
        Format::F32 | Format::F16 | Format::BF16 | Format::F8E4M3 => unreachable!("{} has no blocks", format.name()),
    }
}

/// Value `index` of a row of floats.
///
/// # Panics
/// If the row has no such value, or the format is quantised.
pub(super) fn read_float(format: Format, row: &[u8], index: usize) -> f32 {
    match format {
        Format::F32 => float_at(row, 4 * index),
        Format::F16 => half_at(row, 2 * index),
        Format::BF16 => bf16::from_le_bytes([row[2 * index], row[2 * index + 1]]).to_f32(),
        Format::F8E4M3 => fp8::value_at(row, index),
        _ => unreachable!("{} is not a float format", format.name()),
    }
}

/// Writes all values of whole blocks to `out`.
///
/// # Panics
/// If `bytes` and `out` are not the same number of whole blocks.
pub(super) fn dequantise(format: Format, bytes: &[u8], out: &mut [f32]) {
    let expected = format.row_bytes(out.len());
    assert_eq!(expected, Some(bytes.len()), "{} values in {}", out.len(), format.name());
    if !format.has_integers() {
        return out.iter_mut().enumerate().for_each(|(index, out)| *out = read_float(format, bytes, index));
    }
    for (index, out) in out.chunks_exact_mut(32).enumerate() {
        let block = read(format, bytes, index);
        for (at, (out, integer)) in out.iter_mut().zip(block.integers).enumerate() {
            *out = block.scale[at / 16] * integer as f32 + block.min[at / 16];
        }
    }
}

impl From<GridBlock> for DecodedBlock {
    fn from(block: GridBlock) -> Self {
        Self { integers: block.integers.map(i32::from), scale: block.scale, min: [0.0; 2] }
    }
}

// === the 32-value formats ===

fn q4_0(unit: &[u8]) -> DecodedBlock {
    let integers = std::array::from_fn(|index| nibble(&unit[2..], index) - 8);
    uniform(integers, half_at(unit, 0), 0.0)
}

fn q4_1(unit: &[u8]) -> DecodedBlock {
    let integers = std::array::from_fn(|index| nibble(&unit[4..], index));
    uniform(integers, half_at(unit, 0), half_at(unit, 2))
}

fn q5_0(unit: &[u8]) -> DecodedBlock {
    let integers = std::array::from_fn(|index| nibble(&unit[6..], index) + 16 * bit(&unit[2..], index) - 16);
    uniform(integers, half_at(unit, 0), 0.0)
}

fn q5_1(unit: &[u8]) -> DecodedBlock {
    let integers = std::array::from_fn(|index| nibble(&unit[8..], index) + 16 * bit(&unit[4..], index));
    uniform(integers, half_at(unit, 0), half_at(unit, 2))
}

fn q8_0(unit: &[u8]) -> DecodedBlock {
    let integers = std::array::from_fn(|index| i32::from(unit[2 + index].cast_signed()));
    uniform(integers, half_at(unit, 0), 0.0)
}

fn iq4_nl(unit: &[u8]) -> DecodedBlock {
    uniform(chosen(&IQ4, &unit[2..]), half_at(unit, 0), 0.0)
}

fn mxfp4(unit: &[u8]) -> DecodedBlock {
    uniform(chosen(&E2M1, &unit[1..]), e8m0_half(unit[0]), 0.0)
}

// === the 256-value formats; `sub` counts blocks of 32 ===

fn q2_k(unit: &[u8], sub: usize) -> DecodedBlock {
    let (scales, rest) = unit.split_at(16);
    let (scale, min) = (half_at(unit, 80), half_at(unit, 82));
    let quarter = &rest[32 * (sub / 4)..];
    let integers = std::array::from_fn(|index| i32::from(quarter[index] >> (2 * (sub % 4)) & 3));
    let packed = [scales[2 * sub], scales[2 * sub + 1]];
    DecodedBlock {
        integers,
        scale: packed.map(|packed| scale * f32::from(packed & 15)),
        min: packed.map(|packed| -(min * f32::from(packed >> 4))),
    }
}

fn q3_k(unit: &[u8], sub: usize) -> DecodedBlock {
    let (high, low) = (&unit[..32], &unit[32..96]);
    let quarter = &low[32 * (sub / 4)..];
    let integers = std::array::from_fn(|index| {
        let value = i32::from(quarter[index] >> (2 * (sub % 4)) & 3);
        value + 4 * i32::from(high[index] >> sub & 1) - 4
    });
    let scale = half_at(unit, 108);
    DecodedBlock {
        integers,
        scale: [0, 1].map(|half| scale * q3_k_scale(&unit[96..108], 2 * sub + half) as f32),
        min: [0.0; 2],
    }
}

/// One of the 16 scales of 6 bits: four low bits in the first 8 bytes, two high bits in the last 4.
fn q3_k_scale(packed: &[u8], index: usize) -> i32 {
    let low = packed[index % 8] >> (4 * (index / 8)) & 15;
    let high = packed[8 + index % 4] >> (2 * (index / 4)) & 3;
    i32::from(low | high << 4) - 32
}

fn q4_k(unit: &[u8], sub: usize) -> DecodedBlock {
    let pair = &unit[16 + 32 * (sub / 2)..];
    let integers = std::array::from_fn(|index| i32::from(pair[index] >> (4 * (sub % 2)) & 15));
    with_packed_scales(unit, sub, integers)
}

fn q5_k(unit: &[u8], sub: usize) -> DecodedBlock {
    let (high, pair) = (&unit[16..48], &unit[48 + 32 * (sub / 2)..]);
    let integers = std::array::from_fn(|index| {
        i32::from(pair[index] >> (4 * (sub % 2)) & 15) + 16 * i32::from(high[index] >> sub & 1)
    });
    with_packed_scales(unit, sub, integers)
}

fn q6_k(unit: &[u8], sub: usize) -> DecodedBlock {
    let (half, quarter) = (sub / 4, sub % 4);
    let (low, high) = (&unit[64 * half..], &unit[128 + 32 * half..]);
    let integers = std::array::from_fn(|index| {
        let low = low[32 * (quarter % 2) + index] >> (4 * (quarter / 2)) & 15;
        i32::from(low | (high[index] >> (2 * quarter) & 3) << 4) - 32
    });
    let scale = half_at(unit, 208);
    let sub_scale = |at: usize| f32::from(unit[192 + 2 * sub + at].cast_signed());
    DecodedBlock { integers, scale: [0, 1].map(|at| scale * sub_scale(at)), min: [0.0; 2] }
}

/// Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minimums in 12 bytes after the two 16-bit factors.
fn with_packed_scales(unit: &[u8], sub: usize, integers: [i32; 32]) -> DecodedBlock {
    let packed = &unit[4..16];
    let (scale, min) = if sub < 4 {
        (packed[sub] & 63, packed[sub + 4] & 63)
    } else {
        (packed[sub + 4] & 15 | packed[sub - 4] >> 6 << 4, packed[sub + 4] >> 4 | packed[sub] >> 6 << 4)
    };
    uniform(integers, half_at(unit, 0) * f32::from(scale), -(half_at(unit, 2) * f32::from(min)))
}

/// Eight scales of 6 bits: two high bits each in 2 bytes, then four low bits each in 4 bytes.
fn iq4_xs(unit: &[u8], sub: usize) -> DecodedBlock {
    let low = unit[4 + sub / 2] >> (4 * (sub % 2)) & 15;
    let high = unit[2 + sub / 4] >> (2 * (sub % 4)) & 3;
    let scale = i32::from(low | high << 4) - 32;
    uniform(chosen(&IQ4, &unit[8 + 16 * sub..]), half_at(unit, 0) * scale as f32, 0.0)
}

/// A byte holds the ternary fraction `0.abcde` of 256, so digit `n` is the whole part of three times what is left after
/// `n` multiplications with three. The digits `a` of 32 bytes come first, then the digits `b`, and so on; 16 bytes and
/// then 4 bytes follow in the same way.
fn tq1_0(unit: &[u8], sub: usize) -> DecodedBlock {
    let integers = std::array::from_fn(|index| {
        let (byte, digit) = match 32 * sub + index {
            at @ 0..160 => (at % 32, at / 32),
            at @ 160..240 => (32 + at % 16, (at - 160) / 16),
            at => (48 + at % 4, (at - 240) / 4),
        };
        let rest = unit[byte].wrapping_mul(3_u8.pow(digit as u32));
        i32::from(rest) * 3 / 256 - 1
    });
    uniform(integers, half_at(unit, 52), 0.0)
}

fn tq2_0(unit: &[u8], sub: usize) -> DecodedBlock {
    let quarter = &unit[32 * (sub / 4)..];
    let integers = std::array::from_fn(|index| i32::from(quarter[index] >> (2 * (sub % 4)) & 3) - 1);
    uniform(integers, half_at(unit, 64), 0.0)
}

// === our own: scale, minimum, then the values in blocks of 32 ===

fn affine4(unit: &[u8], sub: usize) -> DecodedBlock {
    let integers = std::array::from_fn(|index| nibble(&unit[8 + 16 * sub..], index));
    uniform(integers, float_at(unit, 0), float_at(unit, 4))
}

/// Each byte is a value from 0 to 255 less 128.
fn affine8(unit: &[u8], sub: usize) -> DecodedBlock {
    let integers = std::array::from_fn(|index| i32::from(unit[8 + 32 * sub + index].cast_signed()) + 128);
    uniform(integers, float_at(unit, 0), float_at(unit, 4))
}

// === bits ===

/// The 32 entries of `codebook` that the nibbles of 16 bytes choose.
fn chosen(codebook: &[i8; 16], bytes: &[u8]) -> [i32; 32] {
    std::array::from_fn(|index| i32::from(codebook[nibble(bytes, index) as usize]))
}

fn uniform(integers: [i32; 32], scale: f32, min: f32) -> DecodedBlock {
    DecodedBlock { integers, scale: [scale; 2], min: [min; 2] }
}

/// Value `index` of 32: the low nibbles of 16 bytes come first, then the high ones.
fn nibble(bytes: &[u8], index: usize) -> i32 {
    i32::from(bytes[index % 16] >> (4 * (index / 16)) & 15)
}

fn bit(bytes: &[u8], index: usize) -> i32 {
    i32::from(bytes[index / 8] >> (index % 8) & 1)
}

pub(super) fn float_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
