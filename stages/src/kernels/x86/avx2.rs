//! AVX2 with FMA and F16C: 8 lanes, byte products in three instructions.

use std::arch::x86_64::*;

use crate::kernels::rows::Quantised;
use crate::kernels::simd::{Simd, Tile, Work};

/// Proof that the machine has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx2(());

impl Avx2 {
    /// The proof, if this machine has it.
    pub(in crate::kernels) fn detect() -> Option<Self> {
        let there =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        there.then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn run_here<W: Work>(s: Avx2, work: W) {
    work.run(s);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantise_here(values: &[f32], stride: usize, out: &mut [Quantised], rows: usize) {
    Quantised::columns(values, stride, out, rows);
}

/// [`Quantised::columns`] on a machine that is known to have AVX2.
pub(in crate::kernels) fn quantise(values: &[f32], stride: usize, out: &mut [Quantised], rows: usize) {
    assert!(Avx2::detect().is_some());
    // SAFETY: the machine has the instruction set.
    unsafe { quantise_here(values, stride, out, rows) }
}

/// An intrinsic whose instruction set an `Avx2` proves.
macro_rules! proven {
    ($call:expr) => {
        // SAFETY: `self` proves that the machine has the instruction set; no memory is touched.
        unsafe { $call }
    };
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const WIDE_OFFSET: Option<u32> = None;
    type Int = __m256i;
    type Float = __m256;

    #[inline(always)]
    fn run<W: Work>(self, work: W) {
        // SAFETY: `self` proves that the machine has the instruction set.
        unsafe { run_here(self, work) }
    }

    #[inline(always)]
    fn splat(self, word: i32) -> __m256i {
        proven!(_mm256_set1_epi32(word))
    }

    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        proven!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        proven!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn shl(self, a: __m256i, bits: u32) -> __m256i {
        proven!(_mm256_sllv_epi32(a, _mm256_set1_epi32(bits as i32)))
    }

    #[inline(always)]
    fn shr(self, a: __m256i, bits: u32) -> __m256i {
        proven!(_mm256_srlv_epi32(a, _mm256_set1_epi32(bits as i32)))
    }

    #[inline(always)]
    fn sar(self, a: __m256i, bits: u32) -> __m256i {
        proven!(_mm256_srav_epi32(a, _mm256_set1_epi32(bits as i32)))
    }

    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        proven!(_mm256_sub_epi32(a, b))
    }

    #[inline(always)]
    fn mul_int(self, a: __m256i, b: __m256i) -> __m256i {
        proven!(_mm256_mullo_epi32(a, b))
    }

    #[inline(always)]
    fn dot(self, sum: __m256i, weights: __m256i, x: i32) -> __m256i {
        // Pairs stay below 2 * 127 * 127, so nothing saturates.
        proven!({
            let pairs = _mm256_maddubs_epi16(weights, _mm256_set1_epi32(x));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }

    #[inline(always)]
    fn dot_wide(self, sum: __m256i, weights: __m256i, x: i32) -> __m256i {
        // The magnitude of a weight is at most 128, that of an activation 127: pairs stay below 2^15.
        proven!({
            let x = _mm256_sign_epi8(_mm256_set1_epi32(x), weights);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), x);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }

    #[inline(always)]
    fn wide(self, weights: __m256i) -> __m256i {
        weights
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> __m256 {
        proven!(_mm256_set1_ps(value))
    }

    #[inline(always)]
    fn to_float(self, a: __m256i) -> __m256 {
        proven!(_mm256_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn as_float(self, a: __m256i) -> __m256 {
        proven!(_mm256_castsi256_ps(a))
    }

    #[inline(always)]
    fn half_to_float(self, a: __m256i) -> __m256 {
        // The high halves are zero, so packing with unsigned saturation keeps the low ones as they are.
        proven!({
            let packed = _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            _mm256_cvtph_ps(packed)
        })
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn neg(self, a: __m256) -> __m256 {
        proven!(_mm256_xor_ps(a, _mm256_set1_ps(-0.0)))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        proven!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn store(self, a: __m256, out: &mut [f32]) {
        assert_eq!(out.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set; `out` has room for 8 floats and the store needs no alignment.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), a) }
    }

    #[inline(always)]
    fn pair(self, tile: Tile<'_>, at: usize) -> __m256i {
        let (start, stride) = tile.lanes(Self::LANES, at, 2);
        // SAFETY: `self` proves the instruction set; two bytes can be read in each of the 8 rows.
        unsafe {
            let row = |lane: usize| i32::from(start.add(lane * stride).cast::<u16>().read_unaligned());
            _mm256_setr_epi32(row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7))
        }
    }

    #[inline(always)]
    fn word(self, tile: Tile<'_>, at: usize) -> __m256i {
        let (start, stride) = tile.lanes(Self::LANES, at, 4);
        // SAFETY: `self` proves the instruction set; four bytes can be read in each of the 8 rows.
        unsafe {
            let row = |lane: usize| start.add(lane * stride).cast::<i32>().read_unaligned();
            _mm256_setr_epi32(row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7))
        }
    }

    #[inline(always)]
    fn words(self, tile: Tile<'_>, at: usize) -> [__m256i; 4] {
        let (start, stride) = tile.lanes(Self::LANES, at, 16);
        // SAFETY: `self` proves the instruction set; 16 bytes can be read in each of the 8 rows.
        unsafe {
            // Vector i holds rows i and i + 4, so that the 4 x 4 transposition inside the halves leaves the rows in order.
            let (a, b) = (halves(start, stride), halves(start.add(stride), stride));
            let (c, d) = (halves(start.add(2 * stride), stride), halves(start.add(3 * stride), stride));
            let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8], at: usize) {
        // SAFETY: a prefetch reads nothing and cannot fault, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(at).cast()) }
    }
}

/// Sixteen bytes at `start` and four strides after.
///
/// # Safety
/// The machine must have AVX2, and the bytes must be there.
#[inline(always)]
unsafe fn halves(start: *const u8, stride: usize) -> __m256i {
    // SAFETY: the caller promises the instruction set and the bytes.
    unsafe {
        let low = _mm256_castsi128_si256(_mm_loadu_si128(start.cast()));
        _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(start.add(4 * stride).cast()))
    }
}
