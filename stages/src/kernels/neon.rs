//! NEON: 8 lanes in two vectors. With the dot product extension, one instruction computes four products of bytes a
//! lane. With the extension for matrices of bytes (i8mm), one computes eight for each of two outputs and two rows.
//!
//! Both products and the conversion of 16-bit floats are written as assembly, because their intrinsics are newer than
//! the compiler that this project requires. The assembly names the extension itself, because a build that inlines
//! little contains copies of these functions that are compiled for plain NEON (and not called).

use std::arch::aarch64::*;
use std::arch::asm;
use std::convert::Infallible;

use super::floats::Floats;
use super::rows::Quantised;
use super::simd::{Simd, WeightTile, WithSimd, dot_by_rows};

/// Proof that the machine has NEON and the extensions up to `EXTENSIONS`: none, [`DOT`] or [`MATRIX`].
#[derive(Clone, Copy)]
pub(crate) struct Neon<const EXTENSIONS: u8>(());

/// The dot product extension.
pub(super) const DOT: u8 = 1;
/// The dot product extension and the one for matrices of bytes (i8mm).
pub(super) const MATRIX: u8 = 2;

impl<const EXTENSIONS: u8> Neon<EXTENSIONS> {
    /// The proof, if this machine has it.
    pub(super) fn detect() -> Option<Self> {
        let detected = std::arch::is_aarch64_feature_detected!("neon")
            && (EXTENSIONS < DOT || std::arch::is_aarch64_feature_detected!("dotprod"))
            && (EXTENSIONS < MATRIX || std::arch::is_aarch64_feature_detected!("i8mm"));
        detected.then_some(Self(()))
    }
}

#[target_feature(enable = "neon,dotprod,i8mm")]
fn run_with_matrix<W: WithSimd, S: Simd>(s: S, work: W) {
    work.run(s);
}

#[target_feature(enable = "neon,dotprod")]
fn run_with_dot<W: WithSimd, S: Simd>(s: S, work: W) {
    work.run(s);
}

#[target_feature(enable = "neon")]
fn run_plain<W: WithSimd, S: Simd>(s: S, work: W) {
    work.run(s);
}

/// [`Quantised::columns`]. NEON is part of every aarch64 target, so no separately compiled version is needed.
pub(super) fn quantise(values: &[f32], stride: usize, out: &mut [Quantised], rows: usize) {
    Quantised::columns(values, stride, out, rows);
}

/// Applies an intrinsic to both vectors of the operands.
macro_rules! both {
    ($step:ident($($operand:ident),+)) => {
        // SAFETY: `self` proves that the machine has NEON and the extensions it names. No memory is touched.
        unsafe { [$step($($operand[0]),+), $step($($operand[1]),+)] }
    };
}

impl<const EXTENSIONS: u8> Floats for Neon<EXTENSIONS> {
    const LANES: usize = 8;
    const QUERIES: usize = 2;
    type Float = [float32x4_t; 2];

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> Self::Float {
        // SAFETY: `self` proves that the machine has NEON.
        unsafe { [vdupq_n_f32(value); 2] }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::Float {
        assert_eq!(from.len(), Self::LANES);
        // SAFETY: `self` proves that the machine has NEON. There are 8 floats.
        unsafe { [vld1q_f32(from.as_ptr()), vld1q_f32(from.as_ptr().add(4))] }
    }

    #[inline(always)]
    fn load_halves(self, from: &[u16]) -> Self::Float {
        assert_eq!(from.len(), Self::LANES);
        // SAFETY: `self` proves that the machine has NEON. There are 8 halves.
        unsafe { [widened(vld1_u16(from.as_ptr())), widened(vld1_u16(from.as_ptr().add(4)))] }
    }

    #[inline(always)]
    fn load_bytes(self, from: &[i8]) -> Self::Float {
        assert_eq!(from.len(), Self::LANES);
        // SAFETY: `self` proves that the machine has NEON. There are 8 bytes.
        unsafe {
            let words = vmovl_s8(vld1_s8(from.as_ptr()));
            [vget_low_s16(words), vget_high_s16(words)].map(|half| vcvtq_f32_s32(vmovl_s16(half)))
        }
    }

    #[inline(always)]
    fn store(self, a: Self::Float, out: &mut [f32]) {
        assert_eq!(out.len(), Self::LANES);
        // SAFETY: `self` proves that the machine has NEON. `out` has room for 8 floats.
        unsafe {
            vst1q_f32(out.as_mut_ptr(), a[0]);
            vst1q_f32(out.as_mut_ptr().add(4), a[1]);
        }
    }

    #[inline(always)]
    fn store_halves(self, a: Self::Float, out: &mut [u16]) {
        assert_eq!(out.len(), Self::LANES);
        // SAFETY: `self` proves that the machine has NEON. `out` has room for 8 halves.
        unsafe {
            vst1_u16(out.as_mut_ptr(), narrowed(a[0]));
            vst1_u16(out.as_mut_ptr().add(4), narrowed(a[1]));
        }
    }

    #[inline(always)]
    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float {
        both!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub_float(self, a: Self::Float, b: Self::Float) -> Self::Float {
        both!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float {
        both!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: Self::Float, b: Self::Float) -> Self::Float {
        both!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        both!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn max(self, a: Self::Float, b: Self::Float) -> Self::Float {
        both!(vmaxq_f32(a, b))
    }

    #[inline(always)]
    fn min(self, a: Self::Float, b: Self::Float) -> Self::Float {
        both!(vminq_f32(a, b))
    }

    #[inline(always)]
    fn round(self, a: Self::Float) -> Self::Float {
        both!(vrndnq_f32(a))
    }

    #[inline(always)]
    fn power_of_two(self, a: Self::Float) -> Self::Float {
        both!(power_of_two(a))
    }

    #[inline(always)]
    fn zero_where_below(self, a: Self::Float, key: Self::Float, bound: Self::Float) -> Self::Float {
        both!(zero_where_below(a, key, bound))
    }

    #[inline(always)]
    fn sum(self, a: Self::Float) -> f32 {
        // SAFETY: `self` proves that the machine has NEON.
        unsafe {
            let four = vaddq_f32(a[0], a[1]);
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }

    #[inline(always)]
    fn largest(self, a: Self::Float) -> f32 {
        // SAFETY: `self` proves that the machine has NEON.
        unsafe { vmaxvq_f32(vmaxq_f32(a[0], a[1])) }
    }

    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        // SAFETY: a prefetch reads nothing and cannot fault, wherever it points.
        unsafe {
            asm!("prfm pldl1keep, [{address}]", address = in(reg) address, options(nostack, readonly, preserves_flags))
        }
    }

    #[inline(always)]
    fn prefetch_far<T>(self, address: *const T) {
        // SAFETY: a prefetch reads nothing and cannot fault, wherever it points.
        unsafe {
            asm!("prfm pldl2keep, [{address}]", address = in(reg) address, options(nostack, readonly, preserves_flags))
        }
    }
}

impl<const EXTENSIONS: u8> Simd for Neon<EXTENSIONS> {
    const WIDE_OFFSET: Option<u32> = None;
    const PAIRS: bool = EXTENSIONS >= MATRIX;
    type Int = [int32x4_t; 2];
    type Matrices = Infallible;

    #[inline(always)]
    fn run<W: WithSimd>(self, work: W) {
        // SAFETY: `self` proves that the machine has the instruction set.
        unsafe {
            match EXTENSIONS {
                MATRIX.. => run_with_matrix(self, work),
                DOT => run_with_dot(self, work),
                _ => run_plain(self, work),
            }
        }
    }

    #[inline(always)]
    fn splat(self, word: i32) -> Self::Int {
        // SAFETY: `self` proves that the machine has NEON.
        unsafe { [vdupq_n_s32(word); 2] }
    }

    #[inline(always)]
    fn and(self, a: Self::Int, b: Self::Int) -> Self::Int {
        both!(vandq_s32(a, b))
    }

    #[inline(always)]
    fn or(self, a: Self::Int, b: Self::Int) -> Self::Int {
        both!(vorrq_s32(a, b))
    }

    #[inline(always)]
    fn shl(self, a: Self::Int, bits: u32) -> Self::Int {
        let bits = self.splat(bits as i32);
        both!(vshlq_s32(a, bits))
    }

    #[inline(always)]
    fn shr(self, a: Self::Int, bits: u32) -> Self::Int {
        let bits = self.splat(-(bits as i32));
        both!(shift_unsigned(a, bits))
    }

    #[inline(always)]
    fn sar(self, a: Self::Int, bits: u32) -> Self::Int {
        let bits = self.splat(-(bits as i32));
        both!(vshlq_s32(a, bits))
    }

    #[inline(always)]
    fn sub(self, a: Self::Int, b: Self::Int) -> Self::Int {
        both!(vsubq_s32(a, b))
    }

    #[inline(always)]
    fn mul_int(self, a: Self::Int, b: Self::Int) -> Self::Int {
        both!(vmulq_s32(a, b))
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], indices: Self::Int) -> Self::Int {
        // SAFETY: `self` proves that the machine has NEON. The table has 16 bytes.
        let table = unsafe { vld1q_u8(table.as_ptr()) };
        let table = [table; 2];
        both!(looked_up(table, indices))
    }

    #[inline(always)]
    fn dot(self, sum: Self::Int, weights: Self::Int, x: i32) -> Self::Int {
        let x = self.splat(x);
        if EXTENSIONS >= DOT { both!(dot(sum, weights, x)) } else { both!(dot_plain(sum, weights, x)) }
    }

    #[inline(always)]
    fn dot_wide(self, sum: Self::Int, weights: Self::Int, x: i32) -> Self::Int {
        self.dot(sum, weights, x)
    }

    #[inline(always)]
    fn wide(self, weights: Self::Int) -> Self::Int {
        weights
    }

    #[inline(always)]
    fn paired(self, mut weights: [Self::Int; 8]) -> [Self::Int; 8] {
        if EXTENSIONS >= MATRIX {
            for words in weights.as_chunks_mut::<2>().0 {
                let [low, high] = *words;
                // Eight bytes of one output, then eight of the next.
                *words = [both!(vzip1q_s32(low, high)), both!(vzip2q_s32(low, high))];
            }
        }
        weights
    }

    #[inline(always)]
    fn dot_pair<const WIDE: bool>(self, sums: [Self::Int; 2], weights: &[Self::Int], x: [&[i8]; 2]) -> [Self::Int; 2] {
        if EXTENSIONS < MATRIX {
            return dot_by_rows::<Self, WIDE>(self, sums, weights, x);
        }
        // Each vector has the sums of one output for both rows, then those of the next output.
        let (mut even, mut odd) = (self.splat(0), self.splat(0));
        let rows = x[0].as_chunks::<8>().0.iter().zip(x[1].as_chunks::<8>().0);
        for (weights, (first, second)) in weights.as_chunks::<2>().0.iter().zip(rows) {
            let [low, high] = *weights;
            // SAFETY: `self` proves that the machine has NEON. The arrays have 8 bytes.
            let x = unsafe { vcombine_s8(vld1_s8(first.as_ptr()), vld1_s8(second.as_ptr())) };
            let x = [x; 2];
            even = both!(dot_matrix(even, low, x));
            odd = both!(dot_matrix(odd, high, x));
        }
        let (first, second) = (both!(vuzp1q_s32(even, odd)), both!(vuzp2q_s32(even, odd)));
        let [first_sum, second_sum] = sums;
        [both!(vaddq_s32(first_sum, first)), both!(vaddq_s32(second_sum, second))]
    }

    #[inline(always)]
    fn to_float(self, a: Self::Int) -> Self::Float {
        both!(vcvtq_f32_s32(a))
    }

    #[inline(always)]
    fn as_float(self, a: Self::Int) -> Self::Float {
        both!(vreinterpretq_f32_s32(a))
    }

    #[inline(always)]
    fn half_to_float(self, a: Self::Int) -> Self::Float {
        both!(half_to_float(a))
    }

    #[inline(always)]
    fn neg(self, a: Self::Float) -> Self::Float {
        both!(vnegq_f32(a))
    }

    #[inline(always)]
    fn pair(self, tile: WeightTile<'_>, at: usize) -> Self::Int {
        let (start, stride) = tile.lanes(Self::LANES, at, 2);
        let mut lanes = [0; 8];
        for (row, lane) in lanes.iter_mut().enumerate() {
            // SAFETY: two bytes can be read in each of the 8 rows.
            *lane = i32::from(unsafe { start.add(row * stride).cast::<u16>().read_unaligned() });
        }
        self.gathered(&lanes)
    }

    #[inline(always)]
    fn word(self, tile: WeightTile<'_>, at: usize) -> Self::Int {
        let (start, stride) = tile.lanes(Self::LANES, at, 4);
        let mut lanes = [0; 8];
        for (row, lane) in lanes.iter_mut().enumerate() {
            // SAFETY: four bytes can be read in each of the 8 rows.
            *lane = unsafe { start.add(row * stride).cast::<i32>().read_unaligned() };
        }
        self.gathered(&lanes)
    }

    #[inline(always)]
    fn words(self, tile: WeightTile<'_>, at: usize) -> [Self::Int; 4] {
        let (start, stride) = tile.lanes(Self::LANES, at, 16);
        // SAFETY: `self` proves that the machine has NEON. 16 bytes can be read in each of the 8 rows.
        let (low, high) = unsafe { (transposed(start, stride), transposed(start.add(4 * stride), stride)) };
        [[low[0], high[0]], [low[1], high[1]], [low[2], high[2]], [low[3], high[3]]]
    }
}

impl<const EXTENSIONS: u8> Neon<EXTENSIONS> {
    #[inline(always)]
    fn gathered(self, lanes: &[i32; 8]) -> [int32x4_t; 2] {
        // SAFETY: `self` proves that the machine has NEON. The array has 8 words.
        unsafe { [vld1q_s32(lanes.as_ptr()), vld1q_s32(lanes.as_ptr().add(4))] }
    }
}

/// Shifts each lane left by its lane of `bits`. A negative count shifts right and shifts zeros in.
///
/// # Safety
/// The machine must have NEON.
#[inline(always)]
unsafe fn shift_unsigned(a: int32x4_t, bits: int32x4_t) -> int32x4_t {
    // SAFETY: the caller promises the instruction set.
    unsafe { vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), bits)) }
}

/// The bytes of `table` at the bytes of `indices`.
///
/// # Safety
/// The machine must have NEON.
#[inline(always)]
unsafe fn looked_up(table: uint8x16_t, indices: int32x4_t) -> int32x4_t {
    // SAFETY: the caller promises the instruction set.
    unsafe { vreinterpretq_s32_u8(vqtbl1q_u8(table, vreinterpretq_u8_s32(indices))) }
}

/// Adds to each lane the four products of its bytes.
///
/// # Safety
/// The machine must have the dot product extension, and the caller's caller must be compiled for it.
#[inline(always)]
unsafe fn dot(mut sum: int32x4_t, weights: int32x4_t, x: int32x4_t) -> int32x4_t {
    // SAFETY: the caller promises the instruction set. No memory is touched.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {weights:v}.16b, {x:v}.16b",
            sum = inout(vreg) sum,
            weights = in(vreg) weights,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Adds the 2 x 2 products of two rows of eight bytes with two columns of eight.
///
/// # Safety
/// The machine must have the extension for matrices of bytes, and the caller's caller must be compiled for it.
#[inline(always)]
unsafe fn dot_matrix(mut sums: int32x4_t, weights: int32x4_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the caller promises the instruction set. No memory is touched.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// As `dot`, without the extension: products are at most 128 * 127, so they fit 16 bits.
///
/// # Safety
/// The machine must have NEON.
#[inline(always)]
unsafe fn dot_plain(sum: int32x4_t, weights: int32x4_t, x: int32x4_t) -> int32x4_t {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let (weights, x) = (vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(x));
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(weights), vget_low_s8(x)));
        let high = vpaddlq_s16(vmull_high_s8(weights, x));
        vaddq_s32(sum, vpaddq_s32(low, high))
    }
}

/// The 16-bit floats in the low halves of the words.
///
/// # Safety
/// The machine must have NEON.
#[inline(always)]
unsafe fn half_to_float(a: int32x4_t) -> float32x4_t {
    // SAFETY: the caller promises the instruction set.
    unsafe { widened(vmovn_u32(vreinterpretq_u32_s32(a))) }
}

/// Four 16-bit floats as floats.
///
/// # Safety
/// The machine must have NEON.
#[inline(always)]
unsafe fn widened(halves: uint16x4_t) -> float32x4_t {
    let floats: float32x4_t;
    // SAFETY: the caller promises the instruction set. No memory is touched.
    unsafe {
        asm!(
            "fcvtl {floats:v}.4s, {halves:v}.4h",
            floats = out(vreg) floats,
            halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    floats
}

/// Four floats as 16-bit floats. The control register sets the rounding, and Rust leaves it at its default.
///
/// # Safety
/// The machine must have NEON.
#[inline(always)]
unsafe fn narrowed(floats: float32x4_t) -> uint16x4_t {
    let halves: uint16x4_t;
    // SAFETY: the caller promises the instruction set. No memory is touched.
    unsafe {
        asm!(
            "fcvtn {halves:v}.4h, {floats:v}.4s",
            halves = out(vreg) halves,
            floats = in(vreg) floats,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    halves
}

/// `2^exponent` for integral lanes from -126 to 127.
///
/// # Safety
/// The machine must have NEON.
#[inline(always)]
unsafe fn power_of_two(exponent: float32x4_t) -> float32x4_t {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let exponent = vaddq_s32(vcvtq_s32_f32(exponent), vdupq_n_s32(127));
        vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
    }
}

/// 0 where `key < bound`, else `a`.
///
/// # Safety
/// The machine must have NEON.
#[inline(always)]
unsafe fn zero_where_below(a: float32x4_t, key: float32x4_t, bound: float32x4_t) -> float32x4_t {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let below = vcltq_f32(key, bound);
        vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), below))
    }
}

/// Sixteen bytes of each of four rows. Vector n has word n of all rows.
///
/// # Safety
/// The machine must have NEON, and the bytes must be there.
#[inline(always)]
unsafe fn transposed(start: *const u8, stride: usize) -> [int32x4_t; 4] {
    // SAFETY: the caller promises the instruction set and the bytes.
    unsafe {
        let a = vreinterpretq_s32_u8(vld1q_u8(start));
        let b = vreinterpretq_s32_u8(vld1q_u8(start.add(stride)));
        let c = vreinterpretq_s32_u8(vld1q_u8(start.add(2 * stride)));
        let d = vreinterpretq_s32_u8(vld1q_u8(start.add(3 * stride)));
        let ab_even = vreinterpretq_s64_s32(vtrn1q_s32(a, b));
        let ab_odd = vreinterpretq_s64_s32(vtrn2q_s32(a, b));
        let cd_even = vreinterpretq_s64_s32(vtrn1q_s32(c, d));
        let cd_odd = vreinterpretq_s64_s32(vtrn2q_s32(c, d));
        [
            vreinterpretq_s32_s64(vtrn1q_s64(ab_even, cd_even)),
            vreinterpretq_s32_s64(vtrn1q_s64(ab_odd, cd_odd)),
            vreinterpretq_s32_s64(vtrn2q_s64(ab_even, cd_even)),
            vreinterpretq_s32_s64(vtrn2q_s64(ab_odd, cd_odd)),
        ]
    }
}
