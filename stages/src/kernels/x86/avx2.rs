//! AVX2 with FMA and F16C: 8 lanes, and products of bytes in three instructions.

use std::arch::x86_64::*;
use std::convert::Infallible;

use crate::kernels::floats::Floats;
use crate::kernels::rows::Quantised;
use crate::kernels::simd::{Simd, WeightTile, WithSimd, word};
use crate::kernels::x86::{largest_of_eight, sum_of_eight};

/// Proof that the machine has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if this machine has it.
    pub(in crate::kernels) fn detect() -> Option<Self> {
        let detected =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        detected.then_some(Self(()))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn run_compiled<W: WithSimd>(s: Avx2, work: W) {
    work.run(s);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn quantise_compiled(values: &[f32], stride: usize, out: &mut [Quantised], rows: usize) {
    Quantised::columns(values, stride, out, rows);
}

/// [`Quantised::columns`] compiled for AVX2, on a machine that has it.
pub(in crate::kernels) fn quantise(values: &[f32], stride: usize, out: &mut [Quantised], rows: usize) {
    assert!(Avx2::detect().is_some());
    // SAFETY: the machine has the instruction set.
    unsafe { quantise_compiled(values, stride, out, rows) }
}

/// Calls an intrinsic whose instruction set an `Avx2` proves.
macro_rules! proven {
    ($call:expr) => {
        // SAFETY: `self` proves that the machine has the instruction set. No memory is touched.
        unsafe { $call }
    };
}

impl Floats for Avx2 {
    const LANES: usize = 8;
    const QUERIES: usize = 2;
    type Float = __m256;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(())
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> __m256 {
        proven!(_mm256_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        assert_eq!(from.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set. There are 8 floats and the load needs no alignment.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_halves(self, from: &[u16]) -> __m256 {
        assert_eq!(from.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set. There are 8 halves and the load needs no alignment.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bytes(self, from: &[i8]) -> __m256 {
        assert_eq!(from.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set. There are 8 bytes and the load needs no alignment.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn store(self, a: __m256, out: &mut [f32]) {
        assert_eq!(out.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set. `out` has room for 8 floats and the store needs no alignment.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), a) }
    }

    #[inline(always)]
    fn store_halves(self, a: __m256, out: &mut [u16]) {
        assert_eq!(out.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set. `out` has room for 8 halves and the store needs no alignment.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a)) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub_float(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        proven!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        proven!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn power_of_two(self, a: __m256) -> __m256 {
        proven!({
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn zero_where_below(self, a: __m256, key: __m256, bound: __m256) -> __m256 {
        proven!(_mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(key, bound), a))
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        proven!(sum_of_eight(a))
    }

    #[inline(always)]
    fn largest(self, a: __m256) -> f32 {
        proven!(largest_of_eight(a))
    }

    #[inline(always)]
    fn prefetch<T>(self, address: *const T) {
        // SAFETY: a prefetch reads nothing and cannot fault, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn prefetch_far<T>(self, address: *const T) {
        // SAFETY: a prefetch reads nothing and cannot fault, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
}

impl Simd for Avx2 {
    const FOURS: bool = true;
    const WIDE_OFFSET: Option<u32> = None;
    type Int = __m256i;
    type Matrices = Infallible;

    #[inline(always)]
    fn run<W: WithSimd>(self, work: W) {
        // SAFETY: `self` proves that the machine has the instruction set.
        unsafe { run_compiled(self, work) }
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
    fn lookup(self, table: &[u8; 16], indices: __m256i) -> __m256i {
        // SAFETY: `self` proves the instruction set. The table has 16 bytes, and the load needs no alignment.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, indices)
        }
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
    fn dot_all<const BYTE_MAX: i32>(self, mut sum: __m256i, weights: &[__m256i], x: &[i8]) -> __m256i {
        // Adds up in 16 bits as many sums of pairs as stay below 2^15.
        let at_once = (i16::MAX as i32 / (2 * 127 * BYTE_MAX)).max(1) as usize;
        let (x, _) = x.as_chunks::<4>();
        for (weights, x) in weights.chunks(at_once).zip(x.chunks(at_once)) {
            proven!({
                let mut pairs = _mm256_setzero_si256();
                for (weights, x) in weights.iter().zip(x) {
                    let products = _mm256_maddubs_epi16(*weights, _mm256_set1_epi32(word(x)));
                    pairs = _mm256_add_epi16(pairs, products);
                }
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            });
        }
        sum
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
    fn neg(self, a: __m256) -> __m256 {
        proven!(_mm256_xor_ps(a, _mm256_set1_ps(-0.0)))
    }

    #[inline(always)]
    fn pair(self, tile: WeightTile<'_>, at: usize) -> __m256i {
        let (start, stride) = tile.lanes(Self::LANES, at, 2);
        // SAFETY: `self` proves the instruction set. Two bytes can be read in each of the 8 rows.
        unsafe {
            let row = |lane: usize| i32::from(start.add(lane * stride).cast::<u16>().read_unaligned());
            _mm256_setr_epi32(row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7))
        }
    }

    #[inline(always)]
    fn word(self, tile: WeightTile<'_>, at: usize) -> __m256i {
        let (start, stride) = tile.lanes(Self::LANES, at, 4);
        // SAFETY: `self` proves the instruction set. Four bytes can be read in each of the 8 rows.
        unsafe {
            let row = |lane: usize| start.add(lane * stride).cast::<i32>().read_unaligned();
            _mm256_setr_epi32(row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7))
        }
    }

    #[inline(always)]
    fn words(self, tile: WeightTile<'_>, at: usize) -> [__m256i; 4] {
        let (start, stride) = tile.lanes(Self::LANES, at, 16);
        // SAFETY: `self` proves the instruction set. 16 bytes can be read in each of the 8 rows.
        unsafe {
            // Vector i holds rows i and i + 4, so that the 4 x 4 transposition in each half leaves the rows in order.
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
    fn two_halves(self, tile: WeightTile<'_>, at: usize) -> (__m256, __m256) {
        let (start, stride) = tile.lanes(Self::LANES, at, 4);
        // SAFETY: `self` proves the instruction set. Four bytes can be read in each of the 8 rows.
        unsafe {
            let row = |lane: usize| start.add(lane * stride).cast::<i32>().read_unaligned();
            // Two numbers of each row. The shuffle at the end corrects the order of the rows.
            let low = _mm256_cvtph_ps(_mm_setr_epi32(row(0), row(1), row(4), row(5)));
            let high = _mm256_cvtph_ps(_mm_setr_epi32(row(2), row(3), row(6), row(7)));
            (_mm256_shuffle_ps::<0b10_00_10_00>(low, high), _mm256_shuffle_ps::<0b11_01_11_01>(low, high))
        }
    }

    #[inline(always)]
    fn dot_nibbles(self, sum: __m256i, tile: WeightTile<'_>, at: usize, x: &[i8; 32]) -> __m256i {
        let (start, stride) = tile.lanes(Self::LANES, at, 16);
        // SAFETY: `self` proves the instruction set. 16 bytes can be read in each of the 8 rows, and 32 at `x`.
        unsafe {
            let [low, high] = both_halves(x);
            let (a, b) = (halves(start, stride), halves(start.add(stride), stride));
            let (c, d) = (halves(start.add(2 * stride), stride), halves(start.add(3 * stride), stride));
            let (a, b) = (nibble_products(a, low, high), nibble_products(b, low, high));
            let (c, d) = (nibble_products(c, low, high), nibble_products(d, low, high));
            _mm256_add_epi32(sum, eight_rows([a, b, c, d]))
        }
    }

    #[inline(always)]
    fn dot_pairs(self, tile: WeightTile<'_>, at: usize, x: [&[i8; 32]; 2]) -> [__m256i; 2] {
        let (start, stride) = tile.lanes(Self::LANES, at, 32);
        // SAFETY: `self` proves the instruction set. 32 bytes can be read in each of the 8 rows, and at both `x`.
        unsafe {
            let low = both_halves(x[0]);
            let high = both_halves(x[1]);
            let mut sums = [[_mm256_setzero_si256(); 4]; 2];
            let mut row = 0;
            while row < 4 {
                let start = start.add(row * stride);
                let (first, second) = (halves(start, stride), halves(start.add(16), stride));
                let mask = _mm256_set1_epi8(15);
                sums[0][row] = _mm256_add_epi16(
                    _mm256_maddubs_epi16(_mm256_and_si256(first, mask), low[0]),
                    _mm256_maddubs_epi16(_mm256_and_si256(second, mask), low[1]),
                );
                sums[1][row] = _mm256_add_epi16(
                    _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(first), mask), high[0]),
                    _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(second), mask), high[1]),
                );
                row += 1;
            }
            [eight_rows(sums[0]), eight_rows(sums[1])]
        }
    }

    #[inline(always)]
    fn dot_bytes(self, sum: __m256i, tile: WeightTile<'_>, at: usize, x: &[i8; 32]) -> __m256i {
        let (start, stride) = tile.lanes(Self::LANES, at, 32);
        // SAFETY: `self` proves the instruction set. 32 bytes can be read in each of the 8 rows, and at `x`.
        unsafe {
            let x = _mm256_loadu_si256(x.as_ptr().cast());
            let first = four_rows(start, stride, x);
            let second = four_rows(start.add(4 * stride), stride, x);
            let low = _mm256_permute2x128_si256::<0x20>(first, second);
            let high = _mm256_permute2x128_si256::<0x31>(first, second);
            _mm256_add_epi32(sum, _mm256_add_epi32(low, high))
        }
    }
}

/// 16 bytes at `start`, then 16 bytes four strides later.
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

/// The first and the second 16 bytes of `x`, each twice.
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
unsafe fn both_halves(x: &[i8; 32]) -> [__m256i; 2] {
    // SAFETY: the caller promises the instruction set. There are 32 bytes, and the loads need no alignment.
    unsafe {
        [
            _mm256_broadcastsi128_si256(_mm_loadu_si128(x.as_ptr().cast())),
            _mm256_broadcastsi128_si256(_mm_loadu_si128(x.as_ptr().add(16).cast())),
        ]
    }
}

/// Sums of eight rows, one in each lane. Vector `i` has 8 sums in 16 bits, each of 4 products of at most 15 * 127, of
/// row `i` and of row `i + 4`.
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
unsafe fn eight_rows([a, b, c, d]: [__m256i; 4]) -> __m256i {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        // Every step halves the sums of a row and doubles the rows of a vector. Sums of 8 and of 16 products fit in 16
        // bits, the sum of all 32 needs 32 bits.
        let ab = _mm256_add_epi16(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let cd = _mm256_add_epi16(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        let all = _mm256_add_epi16(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
        _mm256_madd_epi16(all, _mm256_set1_epi16(1))
    }
}

/// Sums of four products in 16 bits: two neighbouring low nibbles with `low` and two high nibbles with `high`.
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
unsafe fn nibble_products(bytes: __m256i, low: __m256i, high: __m256i) -> __m256i {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let mask = _mm256_set1_epi8(15);
        let low = _mm256_maddubs_epi16(_mm256_and_si256(bytes, mask), low);
        let high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask), high);
        _mm256_add_epi16(low, high)
    }
}

/// Products of 32 signed bytes in each of four rows with `x`, summed to one word for each row in either half.
///
/// # Safety
/// The machine must have AVX2, and the bytes must be there.
#[inline(always)]
unsafe fn four_rows(start: *const u8, stride: usize, x: __m256i) -> __m256i {
    // SAFETY: the caller promises the instruction set and the bytes.
    unsafe {
        let (a, b) = (byte_products(start, x), byte_products(start.add(stride), x));
        let (c, d) = (byte_products(start.add(2 * stride), x), byte_products(start.add(3 * stride), x));
        let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
    }
}

/// Products of 32 signed bytes with `x`, summed in groups of four.
///
/// # Safety
/// The machine must have AVX2, and the bytes must be there.
#[inline(always)]
unsafe fn byte_products(start: *const u8, x: __m256i) -> __m256i {
    // SAFETY: the caller promises the instruction set and the bytes.
    unsafe {
        let weights = _mm256_loadu_si256(start.cast());
        // As in `dot_wide`: pairs stay below 2^15.
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights));
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
    }
}
