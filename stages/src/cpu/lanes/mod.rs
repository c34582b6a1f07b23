//! Sixteen floats at a time, on any processor.
//!
//! Every operation of [`Lanes`] is one correctly rounded IEEE 754 operation on each of the sixteen values (a fused
//! multiply-add counts as one), and sums over lanes have one fixed order. So an algorithm written once over `Lanes`
//! gives the same bits on AVX-512, AVX2, NEON and in plain Rust. The instructions are those of
//! [`Floats`](crate::kernels::Floats), which products use as well (`sixteen`). This folder knows nothing of models.

mod kernel;
mod portable;
mod sixteen;

pub(crate) use kernel::Kernel;

/// Number of values processed at once, the same on every instruction set.
pub(crate) const WIDTH: usize = 16;

/// Sixteen `f32`.
///
/// A type that implements this with instructions that not every processor has is named only in `kernel.rs`, inside
/// functions that run only if those instructions were detected. This makes the methods safe.
pub(crate) trait Lanes: Copy {
    /// Number of queries that attention processes together, chosen so that its sums stay in registers.
    const QUERIES: usize;

    /// `value` in every lane.
    fn splat(value: f32) -> Self;
    /// Loads 16 values.
    fn load(values: &[f32; WIDTH]) -> Self;
    /// Loads 16 half-precision values, given as bits.
    fn load_half(bits: &[u16; WIDTH]) -> Self;
    /// Loads 16 signed bytes.
    fn load_bytes(bytes: &[i8; WIDTH]) -> Self;
    /// Stores 16 values.
    fn store(self, values: &mut [f32; WIDTH]);
    /// Stores 16 values rounded to half precision (nearest, ties to even), as bits.
    fn store_half(self, bits: &mut [u16; WIDTH]);

    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    fn sub(self, other: Self) -> Self;
    /// `self * other`.
    fn mul(self, other: Self) -> Self;
    /// `self / other`.
    fn div(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once.
    fn fma(self, factor: Self, term: Self) -> Self;
    /// The larger of each pair.
    fn max(self, other: Self) -> Self;
    /// The smaller of each pair.
    fn min(self, other: Self) -> Self;
    /// The nearest integer, ties to even.
    fn round(self) -> Self;
    /// `2^self` for integral lanes from -126 to 127.
    fn power_of_two(self) -> Self;
    /// 0 where `key < bound`, else `self`.
    fn zero_where_below(self, key: Self, bound: Self) -> Self;

    /// Prefetches the line at `address` into the first-level cache. Has no effect if the address is invalid or the
    /// processor has no such instruction.
    #[inline(always)]
    fn prefetch<T>(address: *const T) {
        let _ = address;
    }
    /// As `prefetch`, for the second-level cache.
    #[inline(always)]
    fn prefetch_far<T>(address: *const T) {
        let _ = address;
    }

    /// Sum of all lanes. Adds lanes that are 8 apart first, then 4, 2 and 1 apart.
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = [0.0; WIDTH];
        self.store(&mut lanes);
        let mut half = WIDTH / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self) -> f32 {
        let mut lanes = [0.0; WIDTH];
        self.store(&mut lanes);
        let mut half = WIDTH / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] = if lanes[lane + half] > lanes[lane] { lanes[lane + half] } else { lanes[lane] };
            }
            half /= 2;
        }
        lanes[0]
    }
}
