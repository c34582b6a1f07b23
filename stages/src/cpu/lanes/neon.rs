//! Lanes in four NEON registers. NEON is part of every aarch64 processor, so nothing here depends on a check.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Lanes, WIDTH};

const REGISTERS: usize = 4;
/// Values in one register.
const EACH: usize = WIDTH / REGISTERS;

/// Sixteen values in four 128-bit registers.
#[derive(Clone, Copy)]
pub(super) struct Neon([float32x4_t; REGISTERS]);

impl Neon {
    #[inline(always)]
    fn map(self, op: impl Fn(float32x4_t) -> float32x4_t) -> Self {
        Self(self.0.map(op))
    }

    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self(std::array::from_fn(|register| op(self.0[register], other.0[register])))
    }
}

impl Lanes for Neon {
    const QUERIES: usize = 2;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: every aarch64 processor has NEON.
        Self([unsafe { vdupq_n_f32(value) }; REGISTERS])
    }

    #[inline(always)]
    fn load(values: &[f32; WIDTH]) -> Self {
        // SAFETY: as in `splat`; each read is of 4 values inside the array.
        Self(std::array::from_fn(|register| unsafe { vld1q_f32(values[register * EACH..][..EACH].as_ptr()) }))
    }

    #[inline(always)]
    fn load_half(bits: &[u16; WIDTH]) -> Self {
        Self(std::array::from_fn(|register| {
            let wide: float32x4_t;
            // SAFETY: as in `splat`; the read is of 4 values inside the array. `fcvtl` is part of basic NEON and only
            // reads and writes the named registers.
            unsafe {
                let half = vld1_u16(bits[register * EACH..][..EACH].as_ptr());
                asm!("fcvtl {wide:v}.4s, {half:v}.4h", wide = out(vreg) wide, half = in(vreg) half,
                     options(pure, nomem, nostack, preserves_flags));
            }
            wide
        }))
    }

    #[inline(always)]
    fn load_bytes(bytes: &[i8; WIDTH]) -> Self {
        // SAFETY: as in `splat`; the read is of 16 bytes inside the array.
        unsafe {
            let bytes = vld1q_s8(bytes.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes)));
            let quarters = [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)];
            Self(quarters.map(|quarter| vcvtq_f32_s32(vmovl_s16(quarter))))
        }
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; WIDTH]) {
        for (register, part) in self.0.into_iter().zip(values.chunks_exact_mut(EACH)) {
            // SAFETY: as in `splat`; the part is 4 writable values.
            unsafe { vst1q_f32(part.as_mut_ptr(), register) }
        }
    }

    #[inline(always)]
    fn store_half(self, bits: &mut [u16; WIDTH]) {
        for (register, part) in self.0.into_iter().zip(bits.chunks_exact_mut(EACH)) {
            let half: uint16x4_t;
            // SAFETY: as in `splat`; the part is 4 writable values. `fcvtn` is part of basic NEON and only reads and
            // writes the named registers; it rounds as the control register says, which Rust leaves at its default.
            unsafe {
                asm!("fcvtn {half:v}.4h, {wide:v}.4s", half = out(vreg) half, wide = in(vreg) register,
                     options(pure, nomem, nostack, preserves_flags));
                vst1_u16(part.as_mut_ptr(), half);
            }
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        self.zip(other, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        self.zip(other, |a, b| unsafe { vsubq_f32(a, b) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        self.zip(other, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        self.zip(other, |a, b| unsafe { vdivq_f32(a, b) })
    }

    #[inline(always)]
    fn fma(self, factor: Self, term: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(std::array::from_fn(|register| unsafe {
            vfmaq_f32(term.0[register], self.0[register], factor.0[register])
        }))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        self.zip(other, |a, b| unsafe { vmaxq_f32(a, b) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        self.zip(other, |a, b| unsafe { vminq_f32(a, b) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `splat`.
        self.map(|a| unsafe { vrndnq_f32(a) })
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: as in `splat`.
        self.map(|exponent| unsafe {
            let exponent = vaddq_s32(vcvtq_s32_f32(exponent), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn zero_where_below(self, key: Self, bound: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(std::array::from_fn(|register| unsafe {
            let below = vcltq_f32(key.0[register], bound.0[register]);
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(self.0[register]), below))
        }))
    }

    #[inline(always)]
    fn prefetch<T>(place: *const T) {
        // SAFETY: a prefetch reads nothing and cannot fault, wherever it points.
        unsafe { asm!("prfm pldl1keep, [{place}]", place = in(reg) place, options(nostack, readonly, preserves_flags)) }
    }

    #[inline(always)]
    fn prefetch_far<T>(place: *const T) {
        // SAFETY: as in `prefetch`.
        unsafe { asm!("prfm pldl2keep, [{place}]", place = in(reg) place, options(nostack, readonly, preserves_flags)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: as in `splat`.
        unsafe {
            let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: as in `splat`.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(a, b), vmaxq_f32(c, d))) }
    }
}
