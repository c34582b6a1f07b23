//! AVX-512 with VNNI: 16 lanes, and four products of bytes a lane in one instruction.

mod amx;

use std::arch::x86_64::*;

use self::amx::Amx;
use crate::kernels::floats::Floats;
use crate::kernels::rows::Quantised;
use crate::kernels::simd::{Simd, WeightTile, WithSimd, word};
use crate::kernels::x86::{largest_of_eight, sum_of_eight};

/// Proof that the machine has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512 {
    /// AMX, if kernels are to use it as well. The shapes of its registers are set while kernels run.
    matrices: Option<Amx>,
}

impl Avx512 {
    /// The proof, if this machine has it.
    pub(in crate::kernels) fn detect() -> Option<Self> {
        let detected = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        detected.then_some(Self { matrices: None })
    }

    /// The proof that it also has AMX.
    pub(in crate::kernels) fn detect_with_matrices() -> Option<Self> {
        Amx::detect().map(Self::with)
    }

    /// The proof with AMX. A machine with AMX has all the other instructions.
    fn with(matrices: Amx) -> Self {
        Self { matrices: Some(matrices) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run_compiled<W: WithSimd>(s: Avx512, work: W) {
    let _tile_config = s.matrices.map(Amx::configure_tiles);
    work.run(s);
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn quantise_compiled(values: &[f32], stride: usize, out: &mut [Quantised], rows: usize) {
    Quantised::columns_by(values, stride, out, rows, |values| quantised(values));
}

/// [`Quantised::of`] in the same steps, by intrinsics. The code that the compiler generates is several times slower.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn quantised(values: &[f32; 32]) -> Quantised {
    // SAFETY: there are 32 floats, and the loads need no alignment.
    let (low, high) = unsafe { (_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(16))) };
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    let low_magnitude = _mm512_and_si512(_mm512_castps_si512(low), magnitude);
    let high_magnitude = _mm512_and_si512(_mm512_castps_si512(high), magnitude);
    let largest = _mm512_reduce_max_epi32(_mm512_max_epi32(low_magnitude, high_magnitude));
    let steps = match Quantised::steps(largest) {
        Ok(steps) => _mm512_set1_ps(steps),
        Err(block) => return block,
    };
    // Rounds to nearest, ties to even: the processor's default.
    let low = _mm512_cvtps_epi32(_mm512_mul_ps(low, steps));
    let high = _mm512_cvtps_epi32(_mm512_mul_ps(high, steps));
    let bytes = _mm256_set_m128i(_mm512_cvtepi32_epi8(high), _mm512_cvtepi32_epi8(low));
    let mut integers = [0; 32];
    // SAFETY: the array has 32 bytes, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(integers.as_mut_ptr().cast(), bytes) };
    Quantised::assembled(largest, integers, _mm512_reduce_add_epi32(low), _mm512_reduce_add_epi32(high))
}

/// [`Quantised::columns`] compiled for AVX-512, on a machine that has it.
pub(in crate::kernels) fn quantise(values: &[f32], stride: usize, out: &mut [Quantised], rows: usize) {
    assert!(Avx512::detect().is_some());
    // SAFETY: the machine has the instruction set.
    unsafe { quantise_compiled(values, stride, out, rows) }
}

/// Calls an intrinsic whose instruction set an `Avx512` proves.
macro_rules! proven {
    ($call:expr) => {
        // SAFETY: `self` proves that the machine has the instruction set. No memory is touched.
        unsafe { $call }
    };
}

impl Floats for Avx512 {
    const LANES: usize = 16;
    const QUERIES: usize = 8;
    type Float = __m512;

    #[inline(always)]
    unsafe fn assume() -> Self {
        Self { matrices: None }
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> __m512 {
        proven!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        assert_eq!(from.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set. There are 16 floats and the load needs no alignment.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_halves(self, from: &[u16]) -> __m512 {
        assert_eq!(from.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set. There are 16 halves and the load needs no alignment.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bytes(self, from: &[i8]) -> __m512 {
        assert_eq!(from.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set. There are 16 bytes and the load needs no alignment.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn store(self, a: __m512, out: &mut [f32]) {
        assert_eq!(out.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set. `out` has room for 16 floats and the store needs no alignment.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), a) }
    }

    #[inline(always)]
    fn store_halves(self, a: __m512, out: &mut [u16]) {
        assert_eq!(out.len(), Self::LANES);
        // SAFETY: `self` proves the instruction set. `out` has room for 16 halves and the store needs no alignment.
        unsafe {
            let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), halves);
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub_float(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proven!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        proven!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn power_of_two(self, a: __m512) -> __m512 {
        proven!({
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn zero_where_below(self, a: __m512, key: __m512, bound: __m512) -> __m512 {
        proven!(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(key, bound), a))
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        proven!({
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a)));
            sum_of_eight(_mm256_add_ps(_mm512_castps512_ps256(a), high))
        })
    }

    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        proven!({
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a)));
            largest_of_eight(_mm256_max_ps(_mm512_castps512_ps256(a), high))
        })
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

impl Simd for Avx512 {
    const WIDE_OFFSET: Option<u32> = Some(7);
    type Int = __m512i;
    type Matrices = Amx;

    #[inline(always)]
    fn matrices(self) -> Option<Amx> {
        self.matrices
    }

    #[inline(always)]
    fn run<W: WithSimd>(self, work: W) {
        // SAFETY: `self` proves that the machine has the instruction set.
        unsafe { run_compiled(self, work) }
    }

    #[inline(always)]
    fn splat(self, word: i32) -> __m512i {
        proven!(_mm512_set1_epi32(word))
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_and_si512(a, b))
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn shl(self, a: __m512i, bits: u32) -> __m512i {
        proven!(_mm512_sllv_epi32(a, _mm512_set1_epi32(bits as i32)))
    }

    #[inline(always)]
    fn shr(self, a: __m512i, bits: u32) -> __m512i {
        proven!(_mm512_srlv_epi32(a, _mm512_set1_epi32(bits as i32)))
    }

    #[inline(always)]
    fn sar(self, a: __m512i, bits: u32) -> __m512i {
        proven!(_mm512_srav_epi32(a, _mm512_set1_epi32(bits as i32)))
    }

    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_sub_epi32(a, b))
    }

    #[inline(always)]
    fn mul_int(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(_mm512_mullo_epi32(a, b))
    }

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], indices: __m512i) -> __m512i {
        // SAFETY: `self` proves the instruction set. The table has 16 bytes, and the load needs no alignment.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, indices)
        }
    }

    #[inline(always)]
    fn dot(self, sum: __m512i, weights: __m512i, x: i32) -> __m512i {
        proven!(_mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(x)))
    }

    #[inline(always)]
    fn dot_all<const BYTE_MAX: i32>(self, mut sum: __m512i, weights: &[__m512i], x: &[i8]) -> __m512i {
        // In two sums: in one chain, each instruction waits for the latency of the one before, and too few rows fit in
        // the processor's scheduler to hide it.
        let mut other = self.splat(0);
        let (pairs, rest) = weights.as_chunks::<2>();
        let x = x.as_chunks::<4>().0;
        for ([first, second], x) in pairs.iter().zip(x.chunks(2)) {
            sum = self.dot(sum, *first, word(&x[0]));
            other = self.dot(other, *second, word(&x[1]));
        }
        for (weights, x) in rest.iter().zip(&x[2 * pairs.len()..]) {
            sum = self.dot(sum, *weights, word(x));
        }
        proven!(_mm512_add_epi32(sum, other))
    }

    #[inline(always)]
    fn dot_wide(self, sum: __m512i, weights: __m512i, x: i32) -> __m512i {
        self.dot(sum, weights, x)
    }

    #[inline(always)]
    fn dot_wide_all(self, sum: __m512i, weights: &[__m512i], x: &[i8]) -> __m512i {
        self.dot_all::<127>(sum, weights, x)
    }

    #[inline(always)]
    fn wide(self, weights: __m512i) -> __m512i {
        // Adding 128 makes signed bytes unsigned, as the first operand of VPDPBUSD must be.
        proven!(_mm512_xor_si512(weights, _mm512_set1_epi8(-128)))
    }

    #[inline(always)]
    fn to_float(self, a: __m512i) -> __m512 {
        proven!(_mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn as_float(self, a: __m512i) -> __m512 {
        proven!(_mm512_castsi512_ps(a))
    }

    #[inline(always)]
    fn half_to_float(self, a: __m512i) -> __m512 {
        proven!(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)))
    }

    #[inline(always)]
    fn neg(self, a: __m512) -> __m512 {
        proven!(_mm512_xor_ps(a, _mm512_set1_ps(-0.0)))
    }

    #[inline(always)]
    fn pair(self, tile: WeightTile<'_>, at: usize) -> __m512i {
        let (start, stride) = tile.lanes(Self::LANES, at, 2);
        // SAFETY: `self` proves the instruction set. Two bytes can be read in each of the 16 rows.
        unsafe {
            let row = |lane: usize| i32::from(start.add(lane * stride).cast::<u16>().read_unaligned());
            gathered(row)
        }
    }

    #[inline(always)]
    fn word(self, tile: WeightTile<'_>, at: usize) -> __m512i {
        let (start, stride) = tile.lanes(Self::LANES, at, 4);
        // SAFETY: `self` proves the instruction set. Four bytes can be read in each of the 16 rows. They are gathered
        // only if the offsets of all rows fit 32 bits.
        unsafe {
            if stride > i32::MAX as usize / Self::LANES {
                return gathered(|lane| start.add(lane * stride).cast::<i32>().read_unaligned());
            }
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let offsets = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride as i32));
            _mm512_i32gather_epi32::<1>(offsets, start.cast())
        }
    }

    #[inline(always)]
    fn two_halves(self, tile: WeightTile<'_>, at: usize) -> (__m512, __m512) {
        let words = self.word(tile, at);
        proven!({
            let sorted = _mm512_permutexvar_epi16(LOW_THEN_HIGH, words);
            (_mm512_cvtph_ps(_mm512_castsi512_si256(sorted)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(sorted)))
        })
    }

    #[inline(always)]
    fn words(self, tile: WeightTile<'_>, at: usize) -> [__m512i; 4] {
        let (start, stride) = tile.lanes(Self::LANES, at, 16);
        // SAFETY: `self` proves the instruction set. 16 bytes can be read in each of the 16 rows.
        unsafe {
            // Vector i holds rows i, i + 4, i + 8 and i + 12, so that the 4 x 4 transposition inside the quarters
            // leaves the rows in order.
            transposed(|row| quarters(start.add(row * stride), stride))
        }
    }

    /// Half the rows at a time, 32 bytes of each, of which 16 are in one quarter of a vector and 16 in the next: that
    /// takes a third of the steps to bring rows together. The sums of both quarters are added at the end.
    #[inline(always)]
    fn dot_pairs(self, tile: WeightTile<'_>, at: usize, x: [&[i8; 32]; 2]) -> [__m512i; 2] {
        let (start, stride) = tile.lanes(Self::LANES, at, 32);
        let x = x.map(|x| self.in_quarters(x));
        let (mut low, mut high) = ([self.splat(0); 2], [self.splat(0); 2]);
        for (half, (low, high)) in low.iter_mut().zip(&mut high).enumerate() {
            // SAFETY: `self` proves the instruction set. 32 bytes can be read in each of the 16 rows.
            let words = unsafe { eight_rows(start.add(8 * half * stride), stride) };
            for (index, words) in words.into_iter().enumerate() {
                // High nibbles where they are make products 16 times too large, exactly.
                proven!({
                    let nibbles = _mm512_and_si512(words, _mm512_set1_epi8(15));
                    *low = _mm512_dpbusd_epi32(*low, nibbles, x[0][index]);
                    let nibbles = _mm512_and_si512(words, _mm512_set1_epi8(-16));
                    *high = _mm512_dpbusd_epi32(*high, nibbles, x[1][index]);
                });
            }
        }
        [self.joined(low), proven!(_mm512_srai_epi32::<4>(self.joined(high)))]
    }

    /// As `dot_pairs`, for a weight in each byte.
    #[inline(always)]
    fn dot_bytes(self, sum: __m512i, tile: WeightTile<'_>, at: usize, x: &[i8; 32]) -> __m512i {
        let (start, stride) = tile.lanes(Self::LANES, at, 32);
        let x = self.in_quarters(x);
        let mut sums = [self.splat(0); 2];
        for (half, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `self` proves the instruction set. 32 bytes can be read in each of the 16 rows.
            let words = unsafe { eight_rows(start.add(8 * half * stride), stride) };
            for (words, x) in words.into_iter().zip(x) {
                *sum = proven!(_mm512_dpbusd_epi32(*sum, self.wide(words), x));
            }
        }
        proven!(_mm512_add_epi32(sum, self.joined(sums)))
    }
}

impl Avx512 {
    /// Words of 32 bytes for the products with `eight_rows`: vector i has word i in the quarters 0 and 2, and
    /// word i + 4 in the quarters 1 and 3.
    #[inline(always)]
    fn in_quarters(self, x: &[i8; 32]) -> [__m512i; 4] {
        // SAFETY: `self` proves the instruction set. There are 32 bytes, and the load needs no alignment.
        unsafe {
            let words = _mm512_broadcast_i64x4(_mm256_loadu_si256(x.as_ptr().cast()));
            [
                _mm512_shuffle_epi32::<0b00_00_00_00>(words),
                _mm512_shuffle_epi32::<0b01_01_01_01>(words),
                _mm512_shuffle_epi32::<0b10_10_10_10>(words),
                _mm512_shuffle_epi32::<0b11_11_11_11>(words),
            ]
        }
    }

    /// The sums of 16 rows in order, of those of the first eight and the last eight: four rows each in the quarters 0
    /// and 1, and four more in 2 and 3.
    #[inline(always)]
    fn joined(self, [first, last]: [__m512i; 2]) -> __m512i {
        proven!({
            let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(first, last);
            _mm512_add_epi32(even, _mm512_shuffle_i32x4::<0b11_01_11_01>(first, last))
        })
    }
}

/// Permutation that puts the low halves of 16 words first and the high ones after them.
const LOW_THEN_HIGH: __m512i = {
    let mut order = [0_u16; 32];
    let mut index = 0;
    while index < 32 {
        order[index] = (2 * index % 32 + index / 16) as u16;
        index += 1;
    }
    // SAFETY: both are 64 bytes of which every pattern is valid.
    unsafe { std::mem::transmute::<[u16; 32], __m512i>(order) }
};

/// A vector of the 16 values of `row`.
///
/// # Safety
/// The machine must have AVX-512 F.
#[inline(always)]
unsafe fn gathered(row: impl Fn(usize) -> i32) -> __m512i {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        _mm512_setr_epi32(
            row(0),
            row(1),
            row(2),
            row(3),
            row(4),
            row(5),
            row(6),
            row(7),
            row(8),
            row(9),
            row(10),
            row(11),
            row(12),
            row(13),
            row(14),
            row(15),
        )
    }
}

/// Transposes the words of four vectors inside each quarter: vector i of the result has word i of all four.
///
/// # Safety
/// The machine must have AVX-512 F.
#[inline(always)]
unsafe fn transposed(vector: impl Fn(usize) -> __m512i) -> [__m512i; 4] {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let [a, b, c, d] = [vector(0), vector(1), vector(2), vector(3)];
        let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ]
    }
}

/// 32 bytes each of eight rows from `start` on: vector i has word i of the rows 0 to 3, word i + 4 of the same rows,
/// and then those of the rows 4 to 7.
///
/// # Safety
/// The machine must have AVX-512 F, and the bytes must be there.
#[inline(always)]
unsafe fn eight_rows(start: *const u8, stride: usize) -> [__m512i; 4] {
    // SAFETY: the caller promises the instruction set and the bytes.
    unsafe {
        let bytes = |row: usize| _mm256_loadu_si256(start.add(row * stride).cast());
        transposed(|row| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(bytes(row)), bytes(row + 4)))
    }
}

/// 16 bytes each at `start` and at 4, 8 and 12 strides after it.
///
/// # Safety
/// The machine must have AVX-512 F, and the bytes must be there.
#[inline(always)]
unsafe fn quarters(start: *const u8, stride: usize) -> __m512i {
    // SAFETY: the caller promises the instruction set and the bytes.
    unsafe {
        let low = _mm512_castsi128_si512(_mm_loadu_si128(start.cast()));
        let low = _mm512_inserti32x4::<1>(low, _mm_loadu_si128(start.add(4 * stride).cast()));
        let low = _mm512_inserti32x4::<2>(low, _mm_loadu_si128(start.add(8 * stride).cast()));
        _mm512_inserti32x4::<3>(low, _mm_loadu_si128(start.add(12 * stride).cast()))
    }
}
