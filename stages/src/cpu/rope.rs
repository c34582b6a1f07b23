//! Rotary position embedding: the angles of a step's rows, computed once a step, and the rotation of a head by them.

use super::lanes::{Kernel, Lanes};
use crate::kernels::Isa;
use crate::model::{Rope, RopeStyle};

/// Cosine and sine of every pair of dimensions, for every row of a step.
#[derive(Debug)]
pub(super) struct Angles {
    rope: Rope,
    /// Per row: all cosines, then all sines.
    values: Vec<f32>,
}

// === impl Angles ===

impl Angles {
    /// Allocates angles for `rows` rows.
    pub(super) fn new(rope: Rope, rows: usize) -> Self {
        let values = vec![0.0; rows * 2 * rope.pairs()];
        Self { rope, values }
    }

    /// Computes row `row` for a token at `position`, in double precision before rounding.
    pub(super) fn set(&mut self, row: usize, position: u32) {
        let (pairs, magnitude) = (self.rope.pairs(), self.rope.magnitude());
        let (cosines, sines) = self.values[row * 2 * pairs..][..2 * pairs].split_at_mut(pairs);
        for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(self.rope.frequencies()) {
            let (sin, cos) = (f64::from(position) * frequency).sin_cos();
            (*cosine, *sine) = ((cos * magnitude) as f32, (sin * magnitude) as f32);
        }
    }

    /// Rotates `head` by the angles of row `row`.
    pub(super) fn apply_rope(&self, isa: Isa, row: usize, head: &mut [f32]) {
        let pairs = self.rope.pairs();
        let (cosines, sines) = self.values[row * 2 * pairs..][..2 * pairs].split_at(pairs);
        isa.run(Rotate { rope_style: self.rope.rope_style(), cosines, sines, head: &mut head[..2 * pairs] });
    }
}

struct Rotate<'a> {
    rope_style: RopeStyle,
    cosines: &'a [f32],
    sines: &'a [f32],
    head: &'a mut [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();
    /// Plain arithmetic, compiled for the instruction set. It is never fused, so the roundings are the same everywhere.
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let rotated = |a: f32, b: f32, cosine: f32, sine: f32| (a * cosine - b * sine, a * sine + b * cosine);
        let angles = self.cosines.iter().zip(self.sines);
        match self.rope_style {
            RopeStyle::Adjacent => {
                for (pair, (cosine, sine)) in self.head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                    (pair[0], pair[1]) = rotated(pair[0], pair[1], *cosine, *sine);
                }
            }
            RopeStyle::Halves => {
                let (low, high) = self.head.split_at_mut(self.cosines.len());
                for ((a, b), (cosine, sine)) in low.iter_mut().zip(high).zip(angles) {
                    (*a, *b) = rotated(*a, *b, *cosine, *sine);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_styles_rotate_their_pairs_by_position_times_frequency() {
        for (rope_style, partner) in [(RopeStyle::Adjacent, [1, 0, 3, 2]), (RopeStyle::Halves, [2, 3, 0, 1])] {
            let rope = Rope::from_frequencies(vec![1.0, 0.1], rope_style);
            let mut angles = Angles::new(rope, 2);
            angles.set(1, 7);
            let before = [1.0_f32, 2.0, 3.0, 4.0, 5.0];
            for isa in Isa::all() {
                let mut head = before;
                angles.apply_rope(isa, 1, &mut head);
                for index in 0..4 {
                    let other = partner[index];
                    let pair = if rope_style == RopeStyle::Adjacent { index / 2 } else { index % 2 };
                    let angle = 7.0 * [1.0_f64, 0.1][pair];
                    let sign = if index < other { -1.0 } else { 1.0 };
                    let (value, partner) = (f64::from(before[index]), f64::from(before[other]));
                    let expected = value * angle.cos() + sign * partner * angle.sin();
                    assert!((f64::from(head[index]) - expected).abs() < 1e-5, "{rope_style:?} {index}: {head:?}");
                }
                assert_eq!(head[4], 5.0, "dimensions past the pairs stay");
            }
        }
    }
}
