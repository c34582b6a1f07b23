//! Codebooks of 16 values, from which 4 bits choose one, and the scale of the microscaling formats. Knows no layouts.

/// The steps of IQ4_NL and IQ4_XS: closer together around zero, as weights are (`kvalues_iq4nl` in `ggml-common.h`).
pub(super) const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Floats of 4 bits, doubled so that they are integers: one sign bit, two of exponent, one of mantissa (E2M1 of the OCP
/// Microscaling Formats specification 1.0).
pub(super) const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of the scale with these bits, because [`E2M1`] is doubled: `2^(bits - 128)`. The specification's scale for 255
/// is not a number; ggml reads it as a power of two like the others, and so does this.
pub(super) fn e8m0_half(bits: u8) -> f32 {
    // The smallest two are below the smallest normal number.
    f32::from_bits(if bits < 2 { 0x0020_0000 << bits } else { (u32::from(bits) - 1) << 23 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_powers_of_two() {
        for bits in 0..=u8::MAX {
            assert_eq!(f64::from(e8m0_half(bits)), 2_f64.powi(i32::from(bits) - 128));
        }
    }
}
