//! The formats with values of -1, 0 and 1, in ggml's layouts.

use super::quantise::{nearest, put_half, rounded};
use super::search;

/// TQ1_0: five digits in a byte for 32 bytes, then for 16, then four for 4, then the scale.
pub fn tq1(values: &[f32], out: &mut [u8]) {
    let (packed, scale) = out.split_at_mut(52);
    let digits = digits(values, scale);
    for (bytes, first, width, count) in [(0..32, 0, 32, 5), (32..48, 160, 16, 5), (48..52, 240, 4, 4)] {
        for (at, out) in packed[bytes].iter_mut().enumerate() {
            let number = (0..5).fold(0, |number, digit| {
                3 * number + if digit < count { u32::from(digits[first + digit * width + at]) } else { 0 }
            });
            // The byte is the number as a fraction of 3^5, rounded up to a fraction of 256.
            *out = (256 * number).div_ceil(243) as u8;
        }
    }
}

/// TQ2_0: 128 values in 32 bytes, then the scale.
pub fn tq2(values: &[f32], out: &mut [u8]) {
    let (packed, scale) = out.split_at_mut(64);
    for (at, digit) in digits(values, scale).into_iter().enumerate() {
        packed[32 * (at / 128) + at % 32] |= digit << (2 * (at % 128 / 32));
    }
}

/// The values as integers from 0 to 2, and the scale in `out`.
fn digits(values: &[f32], out: &mut [u8]) -> [u8; 256] {
    let tries = (0..=6).map(|step| 1.0 + 0.5 * step as f32);
    let scale = put_half(out, search::best_scale(values, tries, |value| rounded(value, -1.0, 1.0)));
    std::array::from_fn(|at| (nearest(values[at], scale, -1, 1) + 1) as u8)
}
