//! Vectors of floats of an instruction set. A vector is one register, or several that are processed together.
//!
//! Every operation is one correctly rounded IEEE 754 operation on each lane (a fused multiply-add counts as one). So an
//! algorithm gives the same bits on all instruction sets, provided it sums over lanes by [`Floats::sum`]. `simd.rs`
//! adds operations on words for products of weights. The rest of a layer processes sixteen floats at a time for any
//! register width (`cpu/lanes`).

/// Vectors of `LANES` floats. A value is the proof that the machine has the instruction set. All methods are single
/// steps and must be inlined into a function that is compiled for that instruction set.
pub(crate) trait Floats: Copy {
    /// Floats in a vector.
    const LANES: usize;
    /// Number of queries that attention processes together, chosen so that its sums stay in registers.
    const QUERIES: usize;
    /// `LANES` floats.
    type Float: Copy;

    /// The proof without detection, for code that runs only after another proof was given.
    ///
    /// # Safety
    /// The machine has the instructions of this trait's methods (of AVX-512, F is enough for them), and no other method
    /// is called on the value.
    unsafe fn assume() -> Self;

    fn splat_float(self, value: f32) -> Self::Float;
    /// Loads the lanes. `from` has `LANES` places.
    fn load(self, from: &[f32]) -> Self::Float;
    /// Loads `LANES` half-precision floats, given as bits.
    fn load_halves(self, from: &[u16]) -> Self::Float;
    /// Loads `LANES` signed bytes as floats.
    fn load_bytes(self, from: &[i8]) -> Self::Float;
    /// Stores the lanes. `out` has `LANES` places.
    fn store(self, a: Self::Float, out: &mut [f32]);
    /// Stores the lanes rounded to half precision (nearest, ties to even), as bits.
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
    /// Sum of all lanes. Adds lanes that are half of all lanes apart first, then a quarter, and so on.
    fn sum(self, a: Self::Float) -> f32;
    /// The largest lane.
    fn largest(self, a: Self::Float) -> f32;

    /// Prefetches the line at `address` into the first-level cache. Has no effect if the address is invalid.
    fn prefetch<T>(self, address: *const T);
    /// As `prefetch`, for the second-level cache.
    fn prefetch_far<T>(self, address: *const T);
}
