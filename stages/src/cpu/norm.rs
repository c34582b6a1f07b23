//! Normalisation of rows: by the root of their mean square, and by mean and variance.

use super::lanes::{Kernel, Lanes, WIDTH};
use super::math::padded;
use crate::kernels::Isa;

/// Number of separate sums, so that an addition need not wait for the one before.
const SUMS: usize = 4;

/// `out = x / sqrt(mean(x²) + epsilon) * weight`.
pub(super) fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    out.copy_from_slice(x);
    isa.run(Norm { values: out, weight: Some(weight), epsilon });
}

/// As [`rms_norm`], in place.
pub(super) fn rms_norm_in_place(isa: Isa, values: &mut [f32], weight: &[f32], epsilon: f32) {
    isa.run(Norm { values, weight: Some(weight), epsilon });
}

/// The same without weights.
pub(super) fn unit_norm_in_place(isa: Isa, values: &mut [f32], epsilon: f32) {
    isa.run(Norm { values, weight: None, epsilon });
}

/// `values = (values - mean) / sqrt(variance + epsilon) * weight + bias` (LayerNorm).
pub(super) fn layer_norm_in_place(isa: Isa, values: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    isa.run(LayerNorm { values, weight, bias, epsilon });
}

struct LayerNorm<'a> {
    values: &'a mut [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
}

struct Norm<'a> {
    values: &'a mut [f32],
    weight: Option<&'a [f32]>,
    epsilon: f32,
}

impl Kernel for Norm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let mean = sum_of_squares::<L>(self.values) / self.values.len() as f32;
        let scale = 1.0 / (mean + self.epsilon).sqrt();
        let (values, value_rest) = self.values.as_chunks_mut::<WIDTH>();
        let Some(weight) = self.weight else {
            values.iter_mut().for_each(|value| L::load(value).mul(L::splat(scale)).store(value));
            value_rest.iter_mut().for_each(|value| *value *= scale);
            return;
        };
        let (weights, weight_rest) = weight.as_chunks::<WIDTH>();
        for (value, weight) in values.iter_mut().zip(weights) {
            L::load(value).mul(L::splat(scale)).mul(L::load(weight)).store(value);
        }
        for (value, weight) in value_rest.iter_mut().zip(weight_rest) {
            *value = *value * scale * weight;
        }
    }
}

impl Kernel for LayerNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let count = self.values.len() as f32;
        let (values, value_rest) = self.values.as_chunks_mut::<WIDTH>();
        let mut sum = L::splat(0.0);
        for value in &*values {
            sum = sum.add(L::load(value));
        }
        let mean = sum.add(L::load(&padded(value_rest))).sum() / count;
        let mean_lanes = L::splat(mean);
        values.iter_mut().for_each(|value| L::load(value).sub(mean_lanes).store(value));
        value_rest.iter_mut().for_each(|value| *value -= mean);
        let scale = 1.0 / (sum_of_squares::<L>(self.values) / count + self.epsilon).sqrt();
        let (values, value_rest) = self.values.as_chunks_mut::<WIDTH>();
        let (weights, weight_rest) = self.weight.as_chunks::<WIDTH>();
        let (biases, bias_rest) = self.bias.as_chunks::<WIDTH>();
        for ((value, weight), bias) in values.iter_mut().zip(weights).zip(biases) {
            L::load(value).mul(L::splat(scale)).mul(L::load(weight)).add(L::load(bias)).store(value);
        }
        for ((value, weight), bias) in value_rest.iter_mut().zip(weight_rest).zip(bias_rest) {
            *value = *value * scale * weight + bias;
        }
    }
}

#[inline(always)]
fn sum_of_squares<L: Lanes>(values: &[f32]) -> f32 {
    let mut sums = [L::splat(0.0); SUMS];
    let (fours, rest) = values.as_chunks::<{ SUMS * WIDTH }>();
    for four in fours {
        let (parts, _) = four.as_chunks::<WIDTH>();
        for (sum, part) in sums.iter_mut().zip(parts) {
            let part = L::load(part);
            *sum = part.fma(part, *sum);
        }
    }
    let (parts, rest) = rest.as_chunks::<WIDTH>();
    for (sum, part) in sums.iter_mut().zip(parts) {
        let part = L::load(part);
        *sum = part.fma(part, *sum);
    }
    let last = L::load(&padded(rest));
    let [a, b, c, d] = sums;
    let d = last.fma(last, d);
    a.add(b).add(c.add(d)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_any_length_has_the_mean_of_its_bias_and_the_same_bits_everywhere() {
        for length in [1, 15, 64, 100, 384] {
            let x: Vec<f32> = (0..length).map(|i| ((i * 37 % 101) as f32 - 40.0) * 0.11).collect();
            let weight: Vec<f32> = (0..length).map(|i| 0.5 + (i % 7) as f32 * 0.1).collect();
            let bias: Vec<f32> = (0..length).map(|i| (i % 5) as f32 * 0.3 - 0.7).collect();
            let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / length as f64;
            let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / length as f64;
            let mut portable = x.clone();
            layer_norm_in_place(Isa::SCALAR, &mut portable, &weight, &bias, 1e-5);
            for isa in Isa::all() {
                let mut out = x.clone();
                layer_norm_in_place(isa, &mut out, &weight, &bias, 1e-5);
                assert_eq!(out, portable, "{isa:?}, {length} values");
                for index in 0..length {
                    let unit = (f64::from(x[index]) - mean) / (variance + 1e-5).sqrt();
                    let exact = unit * f64::from(weight[index]) + f64::from(bias[index]);
                    assert!((f64::from(out[index]) - exact).abs() < 1e-5, "{isa:?}, {length} values, at {index}");
                }
            }
        }
    }

    #[test]
    fn a_row_of_any_length_is_right_and_has_the_same_bits_everywhere() {
        for length in [1, 15, 64, 100, 576] {
            let x: Vec<f32> = (0..length).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.11).collect();
            let weight: Vec<f32> = (0..length).map(|i| 0.5 + (i % 7) as f32 * 0.1).collect();
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / length as f64;
            let mut portable = vec![0.0; length];
            rms_norm(Isa::SCALAR, &x, &weight, 1e-5, &mut portable);
            for isa in Isa::all() {
                let mut out = vec![0.0; length];
                rms_norm(isa, &x, &weight, 1e-5, &mut out);
                assert_eq!(out, portable, "{isa:?}, {length} values");
                let (mut unit, mut with_ones) = (x.clone(), vec![0.0; length]);
                unit_norm_in_place(isa, &mut unit, 1e-5);
                rms_norm(isa, &x, &vec![1.0; length], 1e-5, &mut with_ones);
                assert_eq!(unit, with_ones, "{isa:?}, {length} values without weights");
                for index in 0..length {
                    let exact = f64::from(x[index]) / (mean + 1e-5).sqrt() * f64::from(weight[index]);
                    assert!((f64::from(out[index]) - exact).abs() < 1e-5, "{isa:?}, {length} values, at {index}");
                }
            }
        }
    }
}
