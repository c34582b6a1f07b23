//! An instruction set's vectors of floats: one register's worth (or what it works on together) at a time.
//!
//! Every operation is one correctly rounded IEEE 754 operation on each lane (a fused multiply-add counts as one), so an
//! algorithm gives the same bits on all of them, as long as it sums over lanes by [`Floats::sum`]. Products of weights
//! add words to this (`simd.rs`), the rest of a layer works on sixteen floats whatever registers hold (`cpu/lanes`).

/// Vectors of `LANES` floats. A value is the proof that the machine has the instruction set. All methods are single
/// steps and must be inlined into a function that is compiled for it.
pub(crate) trait Floats: Copy {
    /// Floats side by side.
    const LANES: usize;
    /// The number of queries attention works on together so that its sums stay in registers.
    const QUERIES: usize;
    /// `LANES` floats.
    type Float: Copy;

    /// The proof, for code that is only reached where another one was seen.
    ///
    /// # Safety
    /// The machine has the instructions of this trait's methods (of AVX-512, F is enough for them), and no other method
    /// is called on the value.
    unsafe fn assume() -> Self;

    fn splat_float(self, value: f32) -> Self::Float;
    /// Reads the lanes in; `from` has `LANES` places.
    fn load(self, from: &[f32]) -> Self::Float;
    /// Reads as many half-precision floats, given as bits.
    fn load_halves(self, from: &[u16]) -> Self::Float;
    /// Reads as many signed bytes.
    fn load_bytes(self, from: &[i8]) -> Self::Float;
    /// Writes the lanes out; `out` has `LANES` places.
    fn store(self, a: Self::Float, out: &mut [f32]);
    /// Writes them rounded to half precision (nearest, ties to even), as bits.
    fn store_halves(self, a: Self::Float, out: &mut [u16]);

    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn sub_float(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn div(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// The larger of each pair.
    fn max(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// The smaller of each pair.
    fn min(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// The nearest integer, ties to even.
    fn round(self, a: Self::Float) -> Self::Float;
    /// `2^a` for integral lanes from -126 to 127.
    fn power_of_two(self, a: Self::Float) -> Self::Float;
    /// 0 where `key < bound`, else `a`.
    fn zero_where_below(self, a: Self::Float, key: Self::Float, bound: Self::Float) -> Self::Float;
    /// The sum of all lanes: lanes half of them apart first, then a quarter, and so on.
    fn sum(self, a: Self::Float) -> f32;
    /// The largest lane.
    fn largest(self, a: Self::Float) -> f32;

    /// Asks the first-level cache for the line at `place`; nothing happens when there is none.
    fn prefetch<T>(self, place: *const T);
    /// As `prefetch`, for the second-level cache.
    fn prefetch_far<T>(self, place: *const T);
}
