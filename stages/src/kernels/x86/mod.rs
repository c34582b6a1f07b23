//! The x86-64 instruction sets, and the reductions that both widths of vectors share.

use std::arch::x86_64::*;

pub(super) mod avx2;
pub(super) mod avx512;

/// Sum of all lanes. Adds lanes that are 4 apart, then 2, then 1.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
unsafe fn sum_of_eight(lanes: __m256) -> f32 {
    // SAFETY: the caller promises AVX.
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
    // SAFETY: the caller promises AVX.
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}
