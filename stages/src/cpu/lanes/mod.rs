//! Sixteen floats at a time, on whatever the processor has.
//!
//! Every operation of [`Lanes`] is one correctly rounded IEEE 754 operation on each of the sixteen values (a fused
//! multiply-add counts as one), and sums over lanes have one fixed order. So an algorithm written once over `Lanes`
//! gives the same bits on AVX-512, AVX2, NEON and in plain Rust. The instructions themselves are those of
//! [`Floats`](crate::kernels::Floats), which products use, too (`sixteen`); this folder knows nothing of models.

mod kernel;
mod portable;
mod sixteen;

pub(crate) use kernel::Kernel;

/// How many values are worked on at once, on every instruction set alike.
pub(crate) const WIDTH: usize = 16;

/// Sixteen `f32`.
///
/// A type that implements this with instructions that not every processor has is named in `kernel.rs` only, inside
/// functions that are called where those instructions were found to exist. That is what makes the methods safe.
pub(crate) trait Lanes: Copy {
    /// How many queries attention works on together so that its sums stay in registers.
    const QUERIES: usize;

    /// `value` in every lane.
    fn splat(value: f32) -> Self;
    /// Reads 16 values.
    fn load(values: &[f32; WIDTH]) -> Self;
    /// Reads 16 half-precision values, given as bits.
    fn load_half(bits: &[u16; WIDTH]) -> Self;
    /// Reads 16 signed bytes.
    fn load_bytes(bytes: &[i8; WIDTH]) -> Self;
    /// Writes 16 values.
    fn store(self, values: &mut [f32; WIDTH]);
    /// Writes 16 values rounded to half precision (nearest, ties to even), as bits.
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

    /// Asks the first-level cache for the line where `place` is. There need be nothing; nothing happens then, nor where there
    /// is no such instruction.
    #[inline(always)]
    fn prefetch<T>(place: *const T) {
        let _ = place;
    }
    /// As `prefetch`, for the second-level cache.
    #[inline(always)]
    fn prefetch_far<T>(place: *const T) {
        let _ = place;
    }

    /// The sum of all lanes: lanes 8 apart first, then 4, 2 and 1 apart.
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
