//! The largest of a long row of logits, and exponentials relative to it, for the sampler.

use super::lanes::{Kernel, Lanes, WIDTH};
use super::math::{exp, padded};
use crate::kernels::Isa;

/// Values processed together. The sum of a chunk is kept in single precision before it is added to the total in
/// double precision.
const CHUNK: usize = 32 * WIDTH;

/// Processes rows of logits with the best instruction set of this processor. Every instruction set gives the same bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exponentials(Isa);

// === impl Exponentials ===

impl Exponentials {
    /// Selects the best instruction set of this processor.
    pub(crate) fn detect() -> Self {
        Self(Isa::best())
    }

    /// First index of the largest value, and that value. `None` if there are no values. Unspecified if a value is NaN.
    pub(crate) fn largest(self, values: &[f32]) -> Option<(usize, f32)> {
        let (start, largest) = self.0.run(Largest(values));
        let offset = values.get(start..)?.iter().position(|value| *value == largest).unwrap_or(0);
        values.get(start + offset).map(|value| (start + offset, *value))
    }

    /// Writes `e^((value - largest) * sharpness)` of each value and returns their sum. The sum is NaN if a value is NaN
    /// or `largest` is infinite.
    pub(crate) fn of(self, values: &[f32], largest: f32, sharpness: f32, out: &mut [f32]) -> f64 {
        self.0.run(Sum { values, largest, sharpness, out })
    }
}

struct Largest<'a>(&'a [f32]);

impl Kernel for Largest<'_> {
    /// Start of the first chunk that has the largest value, and the value.
    type Output = (usize, f32);
    #[inline(always)]
    fn run<L: Lanes>(self) -> Self::Output {
        let mut best = (0, f32::NEG_INFINITY);
        for (index, chunk) in self.0.chunks(CHUNK).enumerate() {
            let (groups, rest) = chunk.as_chunks::<WIDTH>();
            let mut lanes = L::splat(f32::NEG_INFINITY);
            for group in groups {
                lanes = lanes.max(L::load(group));
            }
            let largest = rest.iter().fold(lanes.largest(), |largest, value| largest.max(*value));
            if largest > best.1 {
                best = (index * CHUNK, largest);
            }
        }
        best
    }
}

struct Sum<'a> {
    values: &'a [f32],
    largest: f32,
    sharpness: f32,
    out: &'a mut [f32],
}

impl Kernel for Sum<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<L: Lanes>(self) -> f64 {
        let (largest, sharpness) = (L::splat(self.largest), L::splat(self.sharpness));
        let mut total = 0.0;
        for (values, out) in self.values.chunks(CHUNK).zip(self.out.chunks_mut(CHUNK)) {
            let (values, value_rest) = values.as_chunks::<WIDTH>();
            let (outs, out_rest) = out.as_chunks_mut::<WIDTH>();
            let mut sum = L::splat(0.0);
            for (values, out) in values.iter().zip(outs) {
                let exponentials = exp(L::load(values).sub(largest).mul(sharpness));
                exponentials.store(out);
                sum = sum.add(exponentials);
            }
            total += f64::from(sum.sum());
            let mut lanes = [0.0; WIDTH];
            exp(L::load(&padded(value_rest)).sub(largest).mul(sharpness)).store(&mut lanes);
            out_rest.copy_from_slice(&lanes[..out_rest.len()]);
            total += out_rest.iter().map(|value| f64::from(*value)).sum::<f64>();
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_found_at_its_first_index() {
        let mut values: Vec<f32> = (0..1500).map(|index| -((index * 31 % 97) as f32)).collect();
        (values[700], values[1300], values[1499]) = (5.0, 5.0, 4.0);
        assert_eq!(Exponentials::detect().largest(&values), Some((700, 5.0)));
        assert_eq!(Exponentials::detect().largest(&values[1301..]), Some((198, 4.0)));
        assert_eq!(Exponentials::detect().largest(&[]), None);
    }

    #[test]
    fn the_sum_is_right_and_has_the_same_bits_everywhere() {
        let values: Vec<f32> = (0..1237).map(|index| (index * 37 % 101) as f32 * 0.1).collect();
        let exact: f64 = values.iter().map(|value| ((f64::from(*value) - 10.0) * 0.5).exp()).sum();
        let mut portable = vec![0.0; values.len()];
        let expected = Exponentials(Isa::SCALAR).of(&values, 10.0, 0.5, &mut portable);
        assert!((expected - exact).abs() < 1e-6 * exact, "{expected}, expected {exact}");
        for isa in Isa::all() {
            let mut out = vec![0.0; values.len()];
            let sum = Exponentials(isa).of(&values, 10.0, 0.5, &mut out);
            assert_eq!((sum.to_bits(), &out), (expected.to_bits(), &portable), "{isa:?}");
        }
    }

    #[test]
    fn nan_or_infinity_makes_the_sum_not_finite() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = vec![1.0; 100];
            values[37] = bad;
            let (_, largest) = Exponentials::detect().largest(&values).unwrap();
            assert!(!Exponentials::detect().of(&values, largest, 1.0, &mut [0.0; 100]).is_finite());
        }
    }
}
