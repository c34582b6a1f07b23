//! Lanes in one AVX-512 register or two AVX ones.
//!
//! The types are used only in functions compiled for, and called on, processors that have the instructions: see
//! `kernel.rs`.

use std::arch::x86_64::*;

use super::{Lanes, WIDTH};

/// Sixteen values in a 512-bit register. Needs `avx512f`.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

/// Sixteen values in two 256-bit registers. Needs `avx2`, `fma` and `f16c`.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256, __m256);

// === impl Avx512 ===

impl Lanes for Avx512 {
    const QUERIES: usize = 8;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: `Avx512` is used only where avx512f exists.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(values: &[f32; WIDTH]) -> Self {
        // SAFETY: as in `splat`; the array is 64 readable bytes, and the load needs no alignment.
        Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn load_half(bits: &[u16; WIDTH]) -> Self {
        // SAFETY: as in `splat`; the array is 32 readable bytes, and the load needs no alignment.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bits.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_bytes(bytes: &[i8; WIDTH]) -> Self {
        // SAFETY: as in `splat`; the array is 16 readable bytes, and the load needs no alignment.
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; WIDTH]) {
        // SAFETY: as in `splat`; the array is 64 writable bytes, and the store needs no alignment.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn store_half(self, bits: &mut [u16; WIDTH]) {
        // SAFETY: as in `splat`; the array is 32 writable bytes, and the store needs no alignment.
        unsafe {
            let half = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0);
            _mm256_storeu_si256(bits.as_mut_ptr().cast(), half);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn fma(self, factor: Self, term: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: as in `splat`.
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: as in `splat`.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    fn zero_where_below(self, key: Self, bound: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe {
            let keep = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(key.0, bound.0);
            Self(_mm512_maskz_mov_ps(keep, self.0))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `splat`.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            sum_of_eight(_mm256_add_ps(_mm512_castps512_ps256(self.0), high))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as in `splat`.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            largest_of_eight(_mm256_max_ps(_mm512_castps512_ps256(self.0), high))
        }
    }
}

// === impl Avx2 ===

impl Lanes for Avx2 {
    const QUERIES: usize = 2;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: `Avx2` is used only where avx2, fma and f16c exist.
        let register = unsafe { _mm256_set1_ps(value) };
        Self(register, register)
    }

    #[inline(always)]
    fn load(values: &[f32; WIDTH]) -> Self {
        let (low, high) = values.split_at(WIDTH / 2);
        // SAFETY: as in `splat`; each half is 32 readable bytes, and the loads need no alignment.
        unsafe { Self(_mm256_loadu_ps(low.as_ptr()), _mm256_loadu_ps(high.as_ptr())) }
    }

    #[inline(always)]
    fn load_half(bits: &[u16; WIDTH]) -> Self {
        let (low, high) = bits.split_at(WIDTH / 2);
        // SAFETY: as in `splat`; each half is 16 readable bytes, and the loads need no alignment.
        unsafe {
            let (low, high) = (_mm_loadu_si128(low.as_ptr().cast()), _mm_loadu_si128(high.as_ptr().cast()));
            Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    fn load_bytes(bytes: &[i8; WIDTH]) -> Self {
        // SAFETY: as in `splat`; the array is 16 readable bytes, and the load needs no alignment.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            let (low, high) = (_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)));
            Self(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; WIDTH]) {
        let (low, high) = values.split_at_mut(WIDTH / 2);
        // SAFETY: as in `splat`; each half is 32 writable bytes, and the stores need no alignment.
        unsafe {
            _mm256_storeu_ps(low.as_mut_ptr(), self.0);
            _mm256_storeu_ps(high.as_mut_ptr(), self.1);
        }
    }

    #[inline(always)]
    fn store_half(self, bits: &mut [u16; WIDTH]) {
        const ROUND: i32 = _MM_FROUND_TO_NEAREST_INT;
        let (low, high) = bits.split_at_mut(WIDTH / 2);
        // SAFETY: as in `splat`; each half is 16 writable bytes, and the stores need no alignment.
        unsafe {
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm256_cvtps_ph::<ROUND>(self.0));
            _mm_storeu_si128(high.as_mut_ptr().cast(), _mm256_cvtps_ph::<ROUND>(self.1));
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe { Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn fma(self, factor: Self, term: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, term.0), _mm256_fmadd_ps(self.1, factor.1, term.1)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        const ROUND: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: as in `splat`.
        unsafe { Self(_mm256_round_ps::<ROUND>(self.0), _mm256_round_ps::<ROUND>(self.1)) }
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: as in `splat`.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(self.0), bias));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(self.1), bias));
            Self(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    fn zero_where_below(self, key: Self, bound: Self) -> Self {
        // SAFETY: as in `splat`.
        unsafe {
            let low = _mm256_cmp_ps::<_CMP_NLT_UQ>(key.0, bound.0);
            let high = _mm256_cmp_ps::<_CMP_NLT_UQ>(key.1, bound.1);
            Self(_mm256_and_ps(low, self.0), _mm256_and_ps(high, self.1))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as in `splat`.
        unsafe { sum_of_eight(_mm256_add_ps(self.0, self.1)) }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as in `splat`.
        unsafe { largest_of_eight(_mm256_max_ps(self.0, self.1)) }
    }
}

/// The sum of lanes 4, then 2, then 1 apart.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
unsafe fn sum_of_eight(lanes: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// The largest lane.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
unsafe fn largest_of_eight(lanes: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}
