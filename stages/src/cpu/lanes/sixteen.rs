//! Sixteen lanes made of an instruction set's own vectors: the one implementation of [`Lanes`] on vectors.

use super::{Lanes, WIDTH};
use crate::kernels::Floats;

/// Sixteen floats in `VECTORS` vectors of `S`.
///
/// It is named only in `kernel.rs`, inside functions that run only with an [`Isa`](crate::kernels::Isa) of `S`. This
/// makes [`proof`] sound.
#[derive(Clone, Copy)]
pub(super) struct Sixteen<S: Floats, const VECTORS: usize>([S::Float; VECTORS]);

/// The proof of `S`, which the use of a `Sixteen` of `S` implies.
#[inline(always)]
fn proof<S: Floats>() -> S {
    // SAFETY: a `Sixteen` of `S` is used only where the machine has the instruction set.
    unsafe { S::assume() }
}

/// Applies a step to every vector of its operands. Uses no closures, because a closure is compiled without the
/// instructions of the function that it is in.
macro_rules! each {
    ($step:ident($first:expr $(, $operand:expr)*)) => {{
        let (s, mut out, mut vector) = (proof::<S>(), $first.0, 0);
        while vector < VECTORS {
            out[vector] = s.$step($first.0[vector] $(, $operand.0[vector])*);
            vector += 1;
        }
        Self(out)
    }};
}

/// Loads every vector from its part of `from`.
macro_rules! read {
    ($step:ident($from:expr)) => {{
        const { assert!(VECTORS * S::LANES == WIDTH) };
        let s = proof::<S>();
        let (mut out, mut vector) = ([s.splat_float(0.0); VECTORS], 0);
        while vector < VECTORS {
            out[vector] = s.$step(&$from[vector * S::LANES..(vector + 1) * S::LANES]);
            vector += 1;
        }
        Self(out)
    }};
}

/// Stores every vector to its part of `into`.
macro_rules! write {
    ($step:ident($from:expr, $into:expr)) => {{
        let (s, mut vector) = (proof::<S>(), 0);
        while vector < VECTORS {
            s.$step($from.0[vector], &mut $into[vector * S::LANES..(vector + 1) * S::LANES]);
            vector += 1;
        }
    }};
}

/// Combines all vectors into one by `step`: first those that are half of all apart, then a quarter apart, and so on.
macro_rules! folded {
    ($step:ident($from:expr)) => {{
        let (s, mut all, mut half) = (proof::<S>(), $from.0, VECTORS / 2);
        while half > 0 {
            let mut vector = 0;
            while vector < half {
                all[vector] = s.$step(all[vector], all[vector + half]);
                vector += 1;
            }
            half /= 2;
        }
        all[0]
    }};
}

impl<S: Floats, const VECTORS: usize> Lanes for Sixteen<S, VECTORS> {
    const QUERIES: usize = S::QUERIES;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([proof::<S>().splat_float(value); VECTORS])
    }

    #[inline(always)]
    fn load(values: &[f32; WIDTH]) -> Self {
        read!(load(values))
    }

    #[inline(always)]
    fn load_half(bits: &[u16; WIDTH]) -> Self {
        read!(load_halves(bits))
    }

    #[inline(always)]
    fn load_bytes(bytes: &[i8; WIDTH]) -> Self {
        read!(load_bytes(bytes))
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; WIDTH]) {
        write!(store(self, values));
    }

    #[inline(always)]
    fn store_half(self, bits: &mut [u16; WIDTH]) {
        write!(store_halves(self, bits));
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each!(add(self, other))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each!(sub_float(self, other))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each!(mul(self, other))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        each!(div(self, other))
    }

    #[inline(always)]
    fn fma(self, factor: Self, term: Self) -> Self {
        each!(fma(self, factor, term))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        each!(max(self, other))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        each!(min(self, other))
    }

    #[inline(always)]
    fn round(self) -> Self {
        each!(round(self))
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        each!(power_of_two(self))
    }

    #[inline(always)]
    fn zero_where_below(self, key: Self, bound: Self) -> Self {
        each!(zero_where_below(self, key, bound))
    }

    #[inline(always)]
    fn prefetch<T>(address: *const T) {
        proof::<S>().prefetch(address);
    }

    #[inline(always)]
    fn prefetch_far<T>(address: *const T) {
        proof::<S>().prefetch_far(address);
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        proof::<S>().sum(folded!(add(self)))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        proof::<S>().largest(folded!(max(self)))
    }
}
