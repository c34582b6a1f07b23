//! The formats whose 4 bits choose from a codebook, in ggml's layouts.

use super::quantise::{nearest, put_half, rounded};
use super::search;

const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The index of the codebook's nearest entry for each integer from -128 to 127.
const fn indices(codebook: [i8; 16]) -> [u8; 256] {
    let mut indices = [0; 256];
    let mut integer = 0;
    while integer < 256 {
        let mut index = 1;
        while index < 16 {
            let value = integer as i32 - 128;
            let (best, other) = (codebook[indices[integer] as usize] as i32, codebook[index] as i32);
            if other.abs_diff(value) < best.abs_diff(value) {
                indices[integer] = index as u8;
            }
            index += 1;
        }
        integer += 1;
    }
    indices
}

static IQ4_INDICES: [u8; 256] = indices(IQ4);
static E2M1_INDICES: [u8; 256] = indices(E2M1);

/// IQ4_NL: a scale, then one index of the first half and one of the second in a byte.
pub fn iq4_nl(values: &[f32], out: &mut [u8]) {
    let (scale, nibbles) = out.split_at_mut(2);
    let scale = put_half(scale, iq4_scale(values));
    put_indices(values, scale, &IQ4_INDICES, nibbles);
}

/// IQ4_XS: the factor of the scales, the high bits of 8 scales, their low bits, then each sub-block's indices.
pub fn iq4_xs(values: &[f32], out: &mut [u8]) {
    let fits: Vec<f32> = values.chunks_exact(32).map(iq4_scale).collect();
    let extreme = fits.iter().fold(0.0_f32, |most, fit| if fit.abs() > most.abs() { *fit } else { most });
    let factor = put_half(out, extreme / -32.0);
    for (sub, values) in values.chunks_exact(32).enumerate() {
        let scale = nearest(fits[sub], factor, -32, 31);
        let raised = (scale + 32) as u8;
        out[2 + sub / 4] |= raised >> 4 << (2 * (sub % 4));
        out[4 + sub / 2] |= (raised & 15) << (4 * (sub % 2));
        put_indices(values, factor * scale as f32, &IQ4_INDICES, &mut out[8 + 16 * sub..][..16]);
    }
}

/// MXFP4: the exponent of the scale, then indices as in IQ4_NL. The largest magnitude becomes 4 to 8 before it is
/// limited to 6, as the specification proposes.
pub fn mxfp4(values: &[f32], out: &mut [u8]) {
    let largest = values.iter().fold(0.0_f32, |most, value| if value.abs() > most { value.abs() } else { most });
    let exponent = (largest.to_bits() >> 23).saturating_sub(2).max(2);
    out[0] = exponent as u8;
    // Half of the power, because the codebook's entries are doubled.
    put_indices(values, f32::from_bits((exponent - 1) << 23), &E2M1_INDICES, &mut out[1..]);
}

fn iq4_scale(values: &[f32]) -> f32 {
    let tries = (-3..=3).map(|step| -127.0 + 8.0 * step as f32);
    search::best_scale(values, tries, |value| f32::from(IQ4[usize::from(IQ4_INDICES[place(value)])]))
}

/// Writes the indices of 32 values to 16 bytes.
fn put_indices(values: &[f32], scale: f32, indices: &[u8; 256], out: &mut [u8]) {
    let index = |value: f32| indices[if scale == 0.0 { 128 } else { place(value / scale) }];
    for (at, out) in out.iter_mut().enumerate() {
        *out = index(values[at]) | index(values[at + 16]) << 4;
    }
}

/// The place of the nearest integer in a table of those from -128 to 127.
fn place(value: f32) -> usize {
    (rounded(value, -128.0, 127.0) + 128.0) as usize
}
