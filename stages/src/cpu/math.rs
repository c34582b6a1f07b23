//! Powers and exponentials that give the same bits on every processor.
//!
//! A system's `exp` differs between systems in the last bit. Each function here is one polynomial of fused
//! multiply-adds. The argument is split so that the polynomial covers half a power of two on either side. The
//! coefficients minimise the largest relative error (2e-9 before rounding), found by weighted least squares on
//! Chebyshev nodes.

use std::f32::consts::{LN_2, LOG2_E};

use super::lanes::{Kernel, Lanes, WIDTH};
use crate::kernels::Isa;

/// Coefficients of `2^r` for `r` in -0.5..0.5, the lowest power first.
const POWER: [f32; 7] = [1.0, LN_2, 0.240_226_46, 0.055_503_286, 0.009_618_489, 0.001_339_994_5, 0.000_153_458];
/// Coefficients of `e^r` for `r` in -ln2/2..ln2/2, the lowest power first.
const EXPONENTIAL: [f32; 7] = [1.0, 1.0, 0.499_999_9, 0.166_664_2, 0.041_668_225, 0.008_374_824, 0.001_383_683_5];

/// Powers of two below this are returned as 0, because smaller ones are not normal numbers.
const POWER_MIN: f32 = -126.0;
/// Natural logarithm of the smallest normal number, rounded up. Exponentials of smaller arguments are returned as 0.
const EXPONENT_MIN: f32 = -87.336_54;
/// Exponentials of larger arguments are returned as the exponential of this, which is still finite.
const EXPONENT_MAX: f32 = 88.0;
/// The high part of ln 2, with so few digits that its small multiples are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
/// The low part of ln 2: the difference from `LN_2_HIGH`.
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `2^x` for `x` up to 127, and 0 below -126.
#[inline(always)]
pub(super) fn exp2<L: Lanes>(x: L) -> L {
    let bounded = L::splat(POWER_MIN).max(x);
    let whole = bounded.round();
    let power = polynomial(bounded.sub(whole), &POWER).mul(whole.power_of_two());
    power.zero_where_below(x, L::splat(POWER_MIN))
}

/// `e^x`, but 0 below -87.3 and no more than `e^88`.
#[inline(always)]
pub(super) fn exp<L: Lanes>(x: L) -> L {
    // Bounds are the first operands of `max` and `min`, because both return their second operand if `x` is NaN.
    let bounded = L::splat(EXPONENT_MIN).max(L::splat(EXPONENT_MAX).min(x));
    let whole = bounded.mul(L::splat(LOG2_E)).round();
    let rest = whole.fma(L::splat(-LN_2_HIGH), bounded);
    let rest = whole.fma(L::splat(-LN_2_LOW), rest);
    // -87.3 / ln 2 rounds to -126 and 88 / ln 2 to 127. Both are exponents of normal numbers.
    let power = polynomial(rest, &EXPONENTIAL).mul(whole.power_of_two());
    power.zero_where_below(x, L::splat(EXPONENT_MIN))
}

// No closures from here down to the lanes. A closure is compiled without the instructions of the function that it is
// in, and operations that are not inlined into it then cost a call each.
#[inline(always)]
fn polynomial<L: Lanes>(x: L, coefficients: &[f32; 7]) -> L {
    let mut power = coefficients.len() - 1;
    let mut sum = L::splat(coefficients[power]);
    while power > 0 {
        power -= 1;
        sum = sum.fma(x, L::splat(coefficients[power]));
    }
    sum
}

/// `rest`, which has at most [`WIDTH`] values, padded with zeros.
#[inline(always)]
pub(super) fn padded(rest: &[f32]) -> [f32; WIDTH] {
    let mut lanes = [0.0; WIDTH];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// A function of two values, such as a gate and what it is multiplied with.
trait OfTwo: Copy {
    fn one<L: Lanes>(self, gate: L, up: L) -> L;
}

/// `out = function(gate, up)`.
struct Combine<'a, F>(F, &'a [f32], &'a [f32], &'a mut [f32]);

impl<F: OfTwo> Kernel for Combine<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self(function, gates, ups, outs) = self;
        let (gates, gate_rest) = gates.as_chunks::<WIDTH>();
        let (ups, up_rest) = ups.as_chunks::<WIDTH>();
        let (outs, out_rest) = outs.as_chunks_mut::<WIDTH>();
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            function.one(L::load(gate), L::load(up)).store(out);
        }
        let mut lanes = [0.0; WIDTH];
        function.one(L::load(&padded(gate_rest)), L::load(&padded(up_rest))).store(&mut lanes);
        out_rest.copy_from_slice(&lanes[..out_rest.len()]);
    }
}

/// A function of one value.
trait OfOne: Copy {
    fn one<L: Lanes>(self, x: L) -> L;
}

/// `values = function(values)`.
struct Change<'a, F>(F, &'a mut [f32]);

impl<F: OfOne> Kernel for Change<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Self(function, values) = self;
        let (values, rest) = values.as_chunks_mut::<WIDTH>();
        values.iter_mut().for_each(|value| function.one(L::load(value)).store(value));
        let mut lanes = [0.0; WIDTH];
        function.one(L::load(&padded(rest))).store(&mut lanes);
        rest.copy_from_slice(&lanes[..rest.len()]);
    }
}

/// `out = gate / (1 + e^-gate) * up`: the gated half of a feed-forward layer.
pub(super) fn silu_times(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct Silu;

    impl OfTwo for Silu {
        #[inline(always)]
        fn one<L: Lanes>(self, gate: L, up: L) -> L {
            let e = exp(L::splat(0.0).sub(gate));
            gate.div(L::splat(1.0).add(e)).mul(up)
        }
    }

    isa.run(Combine(Silu, gate, up, out));
}

/// `out = gate / (1 + e^(-2 u)) * up` with `u = sqrt(2 / pi) * (gate + 0.044715 gate^3)`: GELU by its approximation
/// with `tanh`, of which this is another form.
pub(super) fn gelu_times(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    /// `-2 sqrt(2 / pi)`.
    const SLOPE: f32 = -1.595_769;
    const CUBIC: f32 = 0.044_715;

    #[derive(Clone, Copy)]
    struct Gelu;

    impl OfTwo for Gelu {
        #[inline(always)]
        fn one<L: Lanes>(self, gate: L, up: L) -> L {
            let cubic = gate.mul(gate).mul(gate).mul(L::splat(CUBIC));
            let e = exp(gate.add(cubic).mul(L::splat(SLOPE)));
            gate.div(L::splat(1.0).add(e)).mul(up)
        }
    }

    isa.run(Combine(Gelu, gate, up, out));
}

/// `out = gate / (1 + e^(-alpha gate)) * (up + 1)`, with `gate` of at most `limit` and `up` from `-limit` to `limit`.
pub(super) fn clamped_swiglu(isa: Isa, [alpha, limit]: [f32; 2], gate: &[f32], up: &[f32], out: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct Clamped {
        alpha: f32,
        limit: f32,
    }

    impl OfTwo for Clamped {
        #[inline(always)]
        fn one<L: Lanes>(self, gate: L, up: L) -> L {
            let limit = self.limit;
            // NaN stays: `max` and `min` return their second operand if it is NaN.
            let gate = L::splat(limit).min(gate);
            let up = L::splat(-limit).max(L::splat(limit).min(up));
            let e = exp(gate.mul(L::splat(-self.alpha)));
            gate.div(L::splat(1.0).add(e)).mul(up.add(L::splat(1.0)))
        }
    }

    isa.run(Combine(Clamped { alpha, limit }, gate, up, out));
}

/// `values = values * (1 + erf(values / sqrt(2))) / 2`: the exact GELU. `erf` is that of Abramowitz and Stegun, 7.1.26,
/// with an error of at most 1.5e-7.
pub(super) fn gelu(isa: Isa, values: &mut [f32]) {
    /// `0.3275911 / sqrt(2)`.
    const SLOPE: f32 = 0.231_641_9;
    /// The coefficients, halved, the lowest power first.
    const HALVES: [f32; 5] = [0.127_414_8, -0.142_248_36, 0.710_706_9, -0.726_576_03, 0.530_702_7];

    #[derive(Clone, Copy)]
    struct Gelu;

    impl OfOne for Gelu {
        #[inline(always)]
        fn one<L: Lanes>(self, x: L) -> L {
            let size = x.max(L::splat(0.0).sub(x));
            let t = L::splat(1.0).div(L::splat(SLOPE).fma(size, L::splat(1.0)));
            let mut sum = L::splat(HALVES[4]);
            let mut power = HALVES.len() - 1;
            while power > 0 {
                power -= 1;
                sum = sum.fma(t, L::splat(HALVES[power]));
            }
            // The part of the normal distribution beyond `size`.
            let tail = sum.mul(t).mul(exp(x.mul(x).mul(L::splat(-0.5))));
            L::splat(0.0).max(x).sub(size.mul(tail))
        }
    }

    isa.run(Change(Gelu, values));
}

/// `bound * tanh(x / bound)`, as `bound * (2 / (1 + e^(-2 x / bound)) - 1)`.
#[inline(always)]
pub(super) fn bend<L: Lanes>(x: L, bound: f32) -> L {
    let e = exp(x.mul(L::splat(-2.0 / bound)));
    let unit = L::splat(2.0).div(L::splat(1.0).add(e)).sub(L::splat(1.0));
    unit.mul(L::splat(bound))
}

/// Bends each of `values` to `bound`.
pub(super) fn bend_all(isa: Isa, values: &mut [f32], bound: f32) {
    #[derive(Clone, Copy)]
    struct Bend(f32);

    impl OfOne for Bend {
        #[inline(always)]
        fn one<L: Lanes>(self, x: L) -> L {
            bend(x, self.0)
        }
    }

    isa.run(Change(Bend(bound), values));
}

/// `values = 1 / (1 + e^-values)`.
pub(super) fn sigmoid(isa: Isa, values: &mut [f32]) {
    #[derive(Clone, Copy)]
    struct Sigmoid;

    impl OfOne for Sigmoid {
        #[inline(always)]
        fn one<L: Lanes>(self, x: L) -> L {
            L::splat(1.0).div(L::splat(1.0).add(exp(L::splat(0.0).sub(x))))
        }
    }

    isa.run(Change(Sigmoid, values));
}

/// `values += factor * terms`, with one rounding.
pub(super) fn add_scaled(isa: Isa, values: &mut [f32], terms: &[f32], factor: f32) {
    struct AddScaled<'a>(&'a mut [f32], &'a [f32], f32);

    impl Kernel for AddScaled<'_> {
        type Output = ();
        #[inline(always)]
        fn run<L: Lanes>(self) {
            let factor = L::splat(self.2);
            let (values, value_rest) = self.0.as_chunks_mut::<WIDTH>();
            let (terms, term_rest) = self.1.as_chunks::<WIDTH>();
            for (value, term) in values.iter_mut().zip(terms) {
                L::load(term).fma(factor, L::load(value)).store(value);
            }
            for (value, term) in value_rest.iter_mut().zip(term_rest) {
                *value = term.mul_add(self.2, *value);
            }
        }
    }

    isa.run(AddScaled(values, terms, factor));
}

/// `values += terms`.
pub(super) fn add(isa: Isa, values: &mut [f32], terms: &[f32]) {
    struct Add<'a>(&'a mut [f32], &'a [f32]);

    impl Kernel for Add<'_> {
        type Output = ();
        #[inline(always)]
        fn run<L: Lanes>(self) {
            let (values, value_rest) = self.0.as_chunks_mut::<WIDTH>();
            let (terms, term_rest) = self.1.as_chunks::<WIDTH>();
            for (value, term) in values.iter_mut().zip(terms) {
                L::load(value).add(L::load(term)).store(value);
            }
            for (value, term) in value_rest.iter_mut().zip(term_rest) {
                *value += term;
            }
        }
    }

    isa.run(Add(values, terms));
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Both<'a>(&'a [f32; WIDTH]);

    impl Kernel for Both<'_> {
        type Output = [[f32; WIDTH]; 2];
        #[inline(always)]
        fn run<L: Lanes>(self) -> Self::Output {
            let mut out = [[0.0; WIDTH]; 2];
            exp2(L::load(self.0)).store(&mut out[0]);
            exp(L::load(self.0)).store(&mut out[1]);
            out
        }
    }

    fn arguments() -> impl Iterator<Item = [f32; WIDTH]> {
        (0..4000).map(|step| std::array::from_fn(|lane| -130.0 + (step * WIDTH + lane) as f32 * 0.0034))
    }

    #[test]
    fn powers_and_exponentials_are_right_to_two_units_in_the_last_place() {
        for x in arguments() {
            let [powers, exponentials] = Isa::best().run(Both(&x));
            for lane in 0..WIDTH {
                let exact = [f64::from(x[lane]).exp2(), f64::from(x[lane]).min(88.0).exp()];
                for (found, exact) in [powers[lane], exponentials[lane]].into_iter().zip(exact) {
                    let expected = if exact < f64::from(f32::MIN_POSITIVE) { 0.0 } else { exact };
                    let error = (f64::from(found) - expected).abs() / exact.max(f64::from(f32::MIN_POSITIVE));
                    assert!(error < 2.4e-7, "of {}: found {found}, expected {expected}", x[lane]);
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for x in arguments() {
            let expected = Isa::SCALAR.run(Both(&x));
            for isa in Isa::all() {
                let found = isa.run(Both(&x));
                assert_eq!(
                    found.map(|row| row.map(f32::to_bits)),
                    expected.map(|row| row.map(f32::to_bits)),
                    "{isa:?}"
                );
            }
        }
    }

    #[test]
    fn extreme_arguments_give_zero_a_finite_value_or_nan() {
        let mut x = [0.0; WIDTH];
        x[..4].copy_from_slice(&[f32::NEG_INFINITY, f32::NAN, 1000.0, -1000.0]);
        for isa in Isa::all() {
            let [powers, exponentials] = isa.run(Both(&x));
            assert_eq!((powers[0], exponentials[0], exponentials[3]), (0.0, 0.0, 0.0), "{isa:?}");
            assert!(powers[1].is_nan() && exponentials[1].is_nan() && exponentials[2].is_finite(), "{isa:?}");
            assert_eq!((powers[4], exponentials[4]), (1.0, 1.0), "{isa:?}");
        }
    }

    #[test]
    fn sigmoids_and_scaled_sums_of_any_length_have_the_same_bits_everywhere_and_are_right() {
        for length in [1, 16, 37] {
            let x: Vec<f32> = (0..length).map(|i| (i as f32 - 9.0) * 1.3).collect();
            let terms: Vec<f32> = (0..length).map(|i| i as f32 * 0.37 - 1.0).collect();
            let both = |isa| {
                let (mut gates, mut sums) = (x.clone(), x.clone());
                sigmoid(isa, &mut gates);
                add_scaled(isa, &mut sums, &terms, 0.3);
                (gates, sums)
            };
            let portable = both(Isa::SCALAR);
            for isa in Isa::all() {
                assert_eq!(both(isa), portable, "{isa:?}");
            }
            for index in 0..length {
                let exact = 1.0 / (1.0 + (-f64::from(x[index])).exp());
                assert!((f64::from(portable.0[index]) - exact).abs() <= 1e-6 * exact, "at {index}");
                let exact = f64::from(terms[index]).mul_add(f64::from(0.3_f32), f64::from(x[index]));
                assert!((f64::from(portable.1[index]) - exact).abs() <= 1e-6 * exact.abs().max(1.0), "at {index}");
            }
        }
    }

    #[test]
    fn gelu_and_bent_values_have_the_same_bits_everywhere_and_are_right() {
        for length in [1, 16, 37] {
            let x: Vec<f32> = (0..length).map(|i| (i as f32 - 9.0) * 0.7).collect();
            let up: Vec<f32> = (0..length).map(|i| i as f32 * 0.25 - 1.0).collect();
            let both = |isa| {
                let (mut gelu, mut bent) = (vec![0.0; length], x.clone());
                gelu_times(isa, &x, &up, &mut gelu);
                let mut clamped = vec![0.0; length];
                clamped_swiglu(isa, [1.702, 3.0], &x, &up, &mut clamped);
                bend_all(isa, &mut bent, 5.0);
                (gelu, bent, clamped)
            };
            let portable = both(Isa::SCALAR);
            for isa in Isa::all() {
                assert_eq!(both(isa), portable, "{isa:?}");
            }
            for index in 0..length {
                let gate = f64::from(x[index]);
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
                let exact = 0.5 * gate * (1.0 + inner.tanh()) * f64::from(up[index]);
                assert!((f64::from(portable.0[index]) - exact).abs() <= 1e-6 * (1.0 + exact.abs()), "at {index}");
                let (low, up) = (gate.min(3.0), f64::from(up[index]).clamp(-3.0, 3.0));
                let exact = low / (1.0 + (-f64::from(1.702_f32) * low).exp()) * (up + 1.0);
                assert!((f64::from(portable.2[index]) - exact).abs() <= 1e-6 * (1.0 + exact.abs()), "at {index}");
                let exact = 5.0 * (gate / 5.0).tanh();
                assert!((f64::from(portable.1[index]) - exact).abs() <= 2e-6, "at {index}");
            }
        }
    }

    #[test]
    fn the_exact_gelu_of_any_length_has_the_same_bits_everywhere_and_is_right() {
        // By the series of erf, in double precision.
        let erf = |x: f64| {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        };
        for length in [1, 16, 37] {
            let x: Vec<f32> = (0..length).map(|i| (i as f32 - 18.0) * 0.25).collect();
            let mut portable = x.clone();
            gelu(Isa::SCALAR, &mut portable);
            for isa in Isa::all() {
                let mut found = x.clone();
                gelu(isa, &mut found);
                assert_eq!(found, portable, "{isa:?}");
            }
            for (found, x) in portable.iter().zip(&x) {
                let exact = 0.5 * f64::from(*x) * (1.0 + erf(f64::from(*x) / 2_f64.sqrt()));
                assert!((f64::from(*found) - exact).abs() <= 5e-7 * (1.0 + exact.abs()), "{x}: {found}, not {exact}");
            }
        }
    }

    #[test]
    fn silu_of_any_length_has_the_same_bits_everywhere_and_is_right() {
        for length in [1, 16, 37] {
            let gate: Vec<f32> = (0..length).map(|i| (i as f32 - 9.0) * 1.3).collect();
            let up: Vec<f32> = (0..length).map(|i| i as f32 * 0.25 - 1.0).collect();
            for isa in Isa::all() {
                let mut found = vec![0.0; length];
                silu_times(isa, &gate, &up, &mut found);
                let mut portable = vec![0.0; length];
                silu_times(Isa::SCALAR, &gate, &up, &mut portable);
                assert_eq!(found, portable, "{isa:?}");
                for index in 0..length {
                    let exact = f64::from(gate[index]) / (1.0 + (-f64::from(gate[index])).exp()) * f64::from(up[index]);
                    assert!((f64::from(found[index]) - exact).abs() <= 1e-6 * exact.abs(), "{isa:?} at {index}");
                }
            }
        }
    }
}
