//! The formats with blocks of 256 values, in ggml's layouts: sub-blocks with integer scales, and 16-bit factors of
//! those scales.

use super::quantise::{nearest, put_half};
use super::search;

/// The integers of one block: scales and minimums of its sub-blocks, and its values.
struct Shifted {
    scales: Vec<u8>,
    minimums: Vec<u8>,
    integers: [u8; 256],
}

/// Q2_K: 16 sub-blocks. Scales and minimums of 4 bits in 16 bytes, integers of 2 bits, then the factors.
pub fn q2(values: &[f32], out: &mut [u8]) {
    let (packed, factors) = out.split_at_mut(80);
    let Shifted { scales, minimums, integers } = shifted(values, 16, 3, 15, factors);
    let (sub_blocks, quarters) = packed.split_at_mut(16);
    for (at, out) in sub_blocks.iter_mut().enumerate() {
        *out = scales[at] | minimums[at] << 4;
    }
    put_pairs_of_bits(&integers, quarters);
}

/// Q4_K: 8 sub-blocks. Integers of 4 bits: a sub-block is the low halves of 32 bytes, and the next one is their high
/// halves.
pub fn q4(values: &[f32], out: &mut [u8]) {
    let (factors, packed) = out.split_at_mut(4);
    let Shifted { scales, minimums, integers } = shifted(values, 32, 15, 63, factors);
    let (sub_blocks, nibbles) = packed.split_at_mut(12);
    put_scales_and_minimums(&scales, &minimums, sub_blocks);
    put_nibbles(&integers, nibbles);
}

/// Q5_K: as Q4_K, with a plane of fifth bits before the other bits. Bit `i` of its bytes is for sub-block `i`.
pub fn q5(values: &[f32], out: &mut [u8]) {
    let (factors, packed) = out.split_at_mut(4);
    let Shifted { scales, minimums, integers } = shifted(values, 32, 31, 63, factors);
    let (sub_blocks, packed) = packed.split_at_mut(12);
    let (fifths, nibbles) = packed.split_at_mut(32);
    put_scales_and_minimums(&scales, &minimums, sub_blocks);
    put_plane(&integers, 4, fifths);
    put_nibbles(&integers, nibbles);
}

/// Q3_K: 16 sub-blocks. A plane of third bits, the two low bits, scales of 6 bits in 12 bytes, then the factor.
pub fn q3(values: &[f32], out: &mut [u8]) {
    let (packed, factor) = out.split_at_mut(108);
    let (scales, integers) = scaled(values, -4, -32, factor);
    let (thirds, packed) = packed.split_at_mut(32);
    let (quarters, sub_blocks) = packed.split_at_mut(64);
    put_plane(&integers, 2, thirds);
    put_pairs_of_bits(&integers, quarters);
    for (at, scale) in scales.into_iter().enumerate() {
        let raised = (scale + 32) as u8;
        sub_blocks[at % 8] |= (raised & 15) << (4 * (at / 8));
        sub_blocks[8 + at % 4] |= raised >> 4 << (2 * (at / 4));
    }
}

/// Q6_K: 16 sub-blocks. Four low bits, two high bits, scales of 8 bits, then the factor.
pub fn q6(values: &[f32], out: &mut [u8]) {
    let (packed, factor) = out.split_at_mut(208);
    let (scales, integers) = scaled(values, -32, -128, factor);
    let (low, packed) = packed.split_at_mut(128);
    let (high, sub_blocks) = packed.split_at_mut(64);
    for (at, integer) in integers.into_iter().enumerate() {
        // 128 values share 64 bytes of low bits and 32 bytes of high bits, in four groups of 32 values.
        let (half, quarter, place) = (at / 128, at % 128 / 32, at % 32);
        low[64 * half + 32 * (quarter % 2) + place] |= (integer & 15) << (4 * (quarter / 2));
        high[32 * half + place] |= integer >> 4 << (2 * quarter);
    }
    sub_blocks.iter_mut().zip(scales).for_each(|(out, scale)| *out = (scale as i8).cast_unsigned());
}

// === from floats to integers ===

/// Quantises sub-blocks of `length` values with a scale and a minimum each. Writes the factors of both to `factors`.
fn shifted(values: &[f32], length: usize, high: i32, scale_high: i32, factors: &mut [u8]) -> Shifted {
    let fits: Vec<(f32, f32)> =
        values.chunks_exact(length).map(|values| search::scale_and_minimum(values, high, 0.0)).collect();
    // Minimums are at most zero. They are stored as amounts to subtract.
    let largest = fits.iter().fold((0.0_f32, 0.0_f32), |(scale, minimum), fit| {
        (if fit.0 > scale { fit.0 } else { scale }, if -fit.1 > minimum { -fit.1 } else { minimum })
    });
    let scale = put_half(factors, largest.0 / scale_high as f32);
    let minimum = put_half(&mut factors[2..], largest.1 / scale_high as f32);
    let scales: Vec<u8> = fits.iter().map(|fit| nearest(fit.0, scale, 0, scale_high) as u8).collect();
    let minimums: Vec<u8> = fits.iter().map(|fit| nearest(-fit.1, minimum, 0, scale_high) as u8).collect();
    let integers = std::array::from_fn(|at| {
        let (scale, minimum) = (scale * f32::from(scales[at / length]), minimum * f32::from(minimums[at / length]));
        nearest(values[at] + minimum, scale, 0, high) as u8
    });
    Shifted { scales, minimums, integers }
}

/// Quantises sub-blocks of 16 values with a scale each. The values' integers are raised by `-low`. Writes the factor of
/// the scales to `factor`.
fn scaled(values: &[f32], low: i32, scale_low: i32, factor: &mut [u8]) -> (Vec<i32>, [u8; 256]) {
    let fits: Vec<f32> = values.chunks_exact(16).map(|values| search::scale(values, low)).collect();
    let extreme = fits.iter().fold(0.0_f32, |most, fit| if fit.abs() > most.abs() { *fit } else { most });
    let factor = put_half(factor, extreme / scale_low as f32);
    let scales: Vec<i32> = fits.iter().map(|fit| nearest(*fit, factor, scale_low, -scale_low - 1)).collect();
    let integers = std::array::from_fn(|at| {
        let scale = factor * scales[at / 16] as f32;
        (nearest(values[at], scale, low, -low - 1) - low) as u8
    });
    (scales, integers)
}

// === bits ===

/// Writes eight scales and eight minimums of 6 bits.
fn put_scales_and_minimums(scales: &[u8], minimums: &[u8], out: &mut [u8]) {
    for at in 0..4 {
        out[at] = scales[at] | scales[at + 4] >> 4 << 6;
        out[at + 4] = minimums[at] | minimums[at + 4] >> 4 << 6;
        out[at + 8] = scales[at + 4] & 15 | (minimums[at + 4] & 15) << 4;
    }
}

/// Writes the values' low 4 bits: 64 values in 32 bytes.
fn put_nibbles(integers: &[u8; 256], out: &mut [u8]) {
    for (at, integer) in integers.iter().enumerate() {
        out[32 * (at / 64) + at % 32] |= (integer & 15) << (4 * (at % 64 / 32));
    }
}

/// Writes the values' low 2 bits: 128 values in 32 bytes.
fn put_pairs_of_bits(integers: &[u8; 256], out: &mut [u8]) {
    for (at, integer) in integers.iter().enumerate() {
        out[32 * (at / 128) + at % 32] |= (integer & 3) << (2 * (at % 128 / 32));
    }
}

/// Writes bit `bit` of all values: 256 values in 32 bytes.
fn put_plane(integers: &[u8; 256], bit: u32, out: &mut [u8]) {
    for (at, integer) in integers.iter().enumerate() {
        out[at % 32] |= (integer >> bit & 1) << (at / 32);
    }
}
