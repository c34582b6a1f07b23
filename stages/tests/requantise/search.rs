//! Finds scales for a few values: it tries some and keeps the one with the least squared error, in which large values
//! weigh more. Does not depend on layouts.

use super::quantise::rounded;

/// Number of steps tried on either side of the obvious scale, each a fifth of an integer at the end of the range.
const TRIES: i32 = 3;
const STEP: f32 = 0.2;

/// Number of separate partial sums, so that a compiler may add several at once in the same order on every machine.
const LANES: usize = 8;

/// A scale with `value ~ scale * integer` for integers from `low` (negative) to `-low - 1`. Zero if all values are
/// zero.
pub fn scale(values: &[f32], low: i32) -> f32 {
    let (low, high) = (low as f32, (-low - 1) as f32);
    best_scale(values, (-TRIES..=TRIES).map(|step| low + STEP * step as f32), |value| rounded(value, low, high))
}

/// A scale with `value ~ scale * integer`, where `integer` gives the integer of a value divided by the scale. Each of
/// `tries` is the integer that the value of the largest magnitude would be. Zero if all values are zero.
pub fn best_scale(values: &[f32], tries: impl Iterator<Item = f32>, integer: impl Fn(f32) -> f32) -> f32 {
    let extreme = values.iter().fold(0.0_f32, |most, value| if value.abs() > most.abs() { *value } else { most });
    if extreme == 0.0 {
        return 0.0;
    }
    let (mut best, mut best_gain) = (0.0, -1.0);
    for at_extreme in tries {
        let inverse = at_extreme / extreme;
        let [cross, square] = sums(values, |value| {
            let (integer, weight) = (integer(inverse * value), value.abs());
            [weight * value * integer, weight * integer * integer]
        });
        // The best scale for these integers is cross / square. It reduces the squared error by `gain`.
        let gain = if square > 0.0 { cross * cross / square } else { -1.0 };
        if gain > best_gain {
            (best, best_gain) = (cross / square, gain);
        }
    }
    best
}

/// A scale, at least zero, and a minimum, at most `minimum_max`, with `value ~ scale * integer + minimum` for integers
/// from 0 to `high`. Both are zero if all values are zero.
pub fn scale_and_minimum(values: &[f32], high: i32, minimum_max: f32) -> (f32, f32) {
    let least = values.iter().fold(minimum_max, |least, value| if *value < least { *value } else { least });
    let most = values.iter().fold(least, |most, value| if *value > most { *value } else { most });
    if most == least {
        return (0.0, least);
    }
    let high = high as f32;
    let mut best = ((most - least) / high, least);
    let mut best_error = f32::INFINITY;
    for step in -TRIES..=TRIES {
        let inverse = (high + STEP * step as f32) / (most - least);
        let fit = fit(values, |value| rounded((value - least) * inverse, 0.0, high), minimum_max);
        if let Some((scale, minimum, error)) = fit
            && error < best_error
        {
            (best, best_error) = ((scale, minimum), error);
        }
    }
    best
}

/// The scale and the minimum with the least squared error for the values' integers, and that error.
fn fit(values: &[f32], integer: impl Fn(f32) -> f32, minimum_max: f32) -> Option<(f32, f32, f32)> {
    let [weights, xs, integers, squares, crosses, totals] = sums(values, |value| {
        let (integer, weight) = (integer(value), value.abs());
        let (x, i) = (weight * value, weight * integer);
        [weight, x, i, i * integer, i * value, x * value]
    });
    let determinant = weights * squares - integers * integers;
    let mut scale = (weights * crosses - xs * integers) / determinant;
    let mut minimum = (squares * xs - integers * crosses) / determinant;
    if minimum > minimum_max {
        (scale, minimum) = (crosses / squares, minimum_max);
    }
    let (of_squares, of_products) = (
        totals + scale * scale * squares + minimum * minimum * weights,
        scale * crosses + minimum * xs - scale * minimum * integers,
    );
    let sound = scale > 0.0 && scale.is_finite() && minimum.is_finite();
    sound.then_some((scale, minimum, of_squares - 2.0 * of_products))
}

/// The sums of `of(value)` over all values, whose number is a multiple of [`LANES`].
#[inline(always)]
fn sums<const N: usize>(values: &[f32], of: impl Fn(f32) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0.0; LANES]; N];
    for values in values.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let terms = of(values[lane]);
            for at in 0..N {
                lanes[at][lane] += terms[at];
            }
        }
    }
    lanes.map(|lanes| lanes.iter().fold(0.0, |sum, lane| sum + lane))
}
