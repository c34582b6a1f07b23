//! One block of a token's key or value in 8 bits. The stored bits depend only on the block's 32 values.
//!
//! The format is ggml's `q8_0`: a scale in half precision and a signed byte for each value. A byte represents
//! `scale * byte`. The bytes are chosen for the scale as it is stored. Only plain operations with one rounding each are
//! used, so the bits are the same on every processor.

use half::f16;
use schema::record::KvType;

/// Values in a block.
pub(super) const BLOCK: usize = KvType::Q8_BLOCK;
/// The largest byte. -128 is not used, so that a block and its negative are stored alike.
const BYTE_MAX: f32 = 127.0;

/// The scale's bits, and the bytes. If half precision cannot scale the values (too large, infinite or NaN), the scale
/// is NaN, so that the fault is not hidden.
#[inline(always)]
pub(super) fn quantise(values: &[f32; BLOCK]) -> (u16, [i8; BLOCK]) {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = f16::from_f32(largest / BYTE_MAX);
    if !scale.is_finite() || values.iter().any(|value| value.is_nan()) {
        return (f16::NAN.to_bits(), [0; BLOCK]);
    }
    let step = scale.to_f32();
    if step == 0.0 {
        return (0, [0; BLOCK]);
    }
    let byte = |value: f32| (value / step).round_ties_even().clamp(-BYTE_MAX, BYTE_MAX) as i8;
    (scale.to_bits(), values.map(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(bits: u16, bytes: [i8; BLOCK]) -> [f64; BLOCK] {
        bytes.map(|byte| f64::from(f16::from_bits(bits).to_f32()) * f64::from(byte))
    }

    #[test]
    fn a_value_comes_back_within_half_a_step() {
        for (salt, size) in [(1, 1e-3_f32), (2, 1.0), (3, 50.0), (4, 30_000.0)] {
            let values: [f32; BLOCK] = std::array::from_fn(|i| size * ((i * 37 + salt * 11) % 64) as f32 / 32.0 - size);
            let (bits, bytes) = quantise(&values);
            let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(f64::from(value.abs())));
            // The scale is rounded to 11 bits, so the largest value may lie half of 2^-11 of itself past the last byte.
            let bound = largest / 127.0 * (0.5 + 127.0 / 2048.0);
            for (value, found) in values.iter().zip(exact(bits, bytes)) {
                assert!((f64::from(*value) - found).abs() <= bound, "{value} became {found}, bound {bound}");
            }
        }
    }

    #[test]
    fn the_stored_byte_is_the_nearest_for_the_stored_scale() {
        let values: [f32; BLOCK] = std::array::from_fn(|i| (i as f32 - 15.3) * 0.71);
        let (bits, bytes) = quantise(&values);
        let step = f64::from(f16::from_bits(bits).to_f32());
        let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(f64::from(value.abs())));
        assert!((step / (largest / 127.0) - 1.0).abs() <= 1.0 / 2048.0);
        for (value, byte) in values.iter().zip(bytes) {
            assert_eq!(f64::from(byte), (f64::from(*value) / step).round().clamp(-127.0, 127.0));
        }
    }

    #[test]
    fn zeros_stay_zeros_and_nan_or_infinity_becomes_nan() {
        assert_eq!(quantise(&[0.0; BLOCK]), (0, [0; BLOCK]));
        for bad in [f32::NAN, f32::INFINITY, 1e10] {
            let mut values = [1.0; BLOCK];
            values[7] = bad;
            assert!(exact(quantise(&values).0, [0; BLOCK]).iter().all(|value| value.is_nan()), "{bad}");
        }
    }
}
