//! The formats that no GGUF file has: groups with a scale and a minimum in single precision, and floats of 8 bits.

use super::quantise::nearest;

/// Integers of `bits` bits between the least and the greatest value.
pub fn affine(values: &[f32], bits: u32, out: &mut [u8]) {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let high = (1 << bits) - 1;
    let scale = (greatest - least) / high as f32;
    let (factors, weights) = out.split_at_mut(8);
    factors[..4].copy_from_slice(&scale.to_le_bytes());
    factors[4..].copy_from_slice(&least.to_le_bytes());
    let integer = |value: &f32| nearest(value - least, scale, 0, high) as u8;
    if bits == 8 {
        weights.iter_mut().zip(values).for_each(|(out, value)| *out = integer(value) ^ 0x80);
        return;
    }
    for (values, out) in values.chunks_exact(32).zip(weights.chunks_exact_mut(16)) {
        let (low, high) = values.split_at(16);
        out.iter_mut()
            .zip(low.iter().zip(high))
            .for_each(|(out, (low, high))| *out = integer(low) | integer(high) << 4);
    }
}

/// The nearest floats, scaled so that the greatest magnitude is the format's.
pub fn fp8(values: &[f32], out: &mut [u8]) {
    let greatest = values.iter().fold(0.0_f32, |greatest, value| greatest.max(value.abs()));
    let scale = greatest / 448.0;
    out[..4].copy_from_slice(&scale.to_le_bytes());
    let magnitude = |bits: u8| match bits >> 3 {
        0 => f32::from(bits) / 512.0,
        exponent => (1.0 + f32::from(bits & 7) / 8.0) * f32::from(exponent).exp2() / 128.0,
    };
    for (value, out) in values.iter().zip(&mut out[4..]) {
        let wanted = if scale == 0.0 { 0.0 } else { value.abs() / scale };
        let off = |bits: &u8| (magnitude(*bits) - wanted).abs();
        let nearest = (0..0x7f).min_by(|a, b| off(a).total_cmp(&off(b))).expect("there are bits");
        *out = nearest | u8::from(*value < 0.0) << 7;
    }
}
