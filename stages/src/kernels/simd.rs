//! What a kernel asks of an instruction set. A value of such a type is the proof that the machine has it, so everything
//! above the instruction sets' own files is safe code. Knows no formats.
//!
//! One lane is one output: the `LANES` rows of a tile are multiplied side by side, so that no sum ever crosses lanes and
//! the order of operations is the same on every width.

use super::Matrix;

/// Vectors of `LANES` 32-bit lanes. All methods are single steps and must be inlined into [`Simd::run`].
pub(super) trait Simd: Copy {
    /// Outputs side by side.
    const LANES: usize;
    /// What [`Simd::dot_wide`] wants added to every weight, as a power of two: `None` if it takes them as they are.
    const WIDE_OFFSET: Option<u32>;
    /// `LANES` words, or four bytes each.
    type Int: Copy;
    /// `LANES` floats.
    type Float: Copy;

    /// Runs `work` with the instruction set switched on.
    fn run<W: Work>(self, work: W);

    fn splat(self, word: i32) -> Self::Int;
    fn and(self, a: Self::Int, b: Self::Int) -> Self::Int;
    fn or(self, a: Self::Int, b: Self::Int) -> Self::Int;
    fn shl(self, a: Self::Int, bits: u32) -> Self::Int;
    /// Shifts zeros in.
    fn shr(self, a: Self::Int, bits: u32) -> Self::Int;
    /// Shifts the sign in.
    fn sar(self, a: Self::Int, bits: u32) -> Self::Int;
    fn sub(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// The low words of the products.
    fn mul_int(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Adds to each lane of `sum` the four products of its bytes of `weights` (0..=127) with the bytes of `x` (signed,
    /// not -128).
    fn dot(self, sum: Self::Int, weights: Self::Int, x: i32) -> Self::Int;
    /// As `dot`, for weights that `wide` made ready.
    fn dot_wide(self, sum: Self::Int, weights: Self::Int, x: i32) -> Self::Int;
    /// Makes signed bytes ready for `dot_wide`.
    fn wide(self, weights: Self::Int) -> Self::Int;
    /// Makes the weights of a block ready for `dot_pair`.
    #[inline(always)]
    fn paired(self, weights: [Self::Int; 8]) -> [Self::Int; 8] {
        weights
    }
    /// As `dot`, or `dot_wide` if `WIDE`, for two rows at once and an even number of vectors that `paired` made ready, one
    /// after the other; `x` has four bytes of each row for each vector.
    #[inline(always)]
    fn dot_pair<const WIDE: bool>(self, sums: [Self::Int; 2], weights: &[Self::Int], x: [&[i8]; 2]) -> [Self::Int; 2] {
        dot_by_rows::<Self, WIDE>(self, sums, weights, x)
    }

    fn splat_float(self, value: f32) -> Self::Float;
    /// Signed words as floats, to nearest, ties to even.
    fn to_float(self, a: Self::Int) -> Self::Float;
    /// The same bits.
    fn as_float(self, a: Self::Int) -> Self::Float;
    /// The 16-bit floats in the low halves; the high halves must be zero.
    fn half_to_float(self, a: Self::Int) -> Self::Float;
    fn add(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn mul(self, a: Self::Float, b: Self::Float) -> Self::Float;
    fn neg(self, a: Self::Float) -> Self::Float;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// Writes the lanes out; `out` has `LANES` places.
    fn store(self, a: Self::Float, out: &mut [f32]);

    /// Two bytes of every row of the tile, `at` bytes into the row.
    fn pair(self, tile: Tile<'_>, at: usize) -> Self::Int;
    /// Four bytes of every row.
    fn word(self, tile: Tile<'_>, at: usize) -> Self::Int;
    /// Sixteen bytes of every row, four to a vector.
    fn words(self, tile: Tile<'_>, at: usize) -> [Self::Int; 4];
    /// Asks for the cache line of `bytes` at `at`; nothing happens when there is none.
    fn prefetch(self, bytes: &[u8], at: usize);
}

/// [`Simd::dot_pair`] where there is nothing better: one row after the other.
#[inline(always)]
pub(super) fn dot_by_rows<S: Simd, const WIDE: bool>(
    s: S,
    mut sums: [S::Int; 2],
    weights: &[S::Int],
    x: [&[i8]; 2],
) -> [S::Int; 2] {
    for (sum, x) in sums.iter_mut().zip(x) {
        for (weights, x) in weights.iter().zip(x.as_chunks::<4>().0) {
            let x = i32::from_le_bytes(x.map(i8::cast_unsigned));
            *sum = if WIDE { s.dot_wide(*sum, *weights, x) } else { s.dot(*sum, *weights, x) };
        }
    }
    sums
}

/// Something to run on an instruction set.
pub(super) trait Work {
    fn run<S: Simd>(self, simd: S);
}

/// The `LANES` neighbouring rows of a matrix that one vector holds.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    rows: usize,
    stride: usize,
    bytes: &'a [u8],
}

// === impl Tile ===

impl<'a> Tile<'a> {
    /// The `rows` rows from `first` on.
    ///
    /// # Panics
    /// When there are not that many.
    #[inline(always)]
    pub(super) fn of(matrix: &Matrix<'a>, first: usize, rows: usize) -> Self {
        let stride = matrix.row_bytes();
        Self { rows, stride, bytes: &matrix.bytes()[first * stride..(first + rows) * stride] }
    }

    /// `rows` rows of `stride` bytes each.
    ///
    /// # Panics
    /// When `bytes` are not as many.
    #[inline(always)]
    pub(super) fn from_rows(bytes: &'a [u8], rows: usize, stride: usize) -> Self {
        assert_eq!(bytes.len(), rows * stride);
        Self { rows, stride, bytes }
    }

    /// A pointer `at` bytes into the first of `rows` rows, and the bytes from one row to the next: `len` bytes can be
    /// read there in each.
    ///
    /// # Panics
    /// When the rows are fewer or shorter.
    #[inline(always)]
    pub(super) fn lanes(&self, rows: usize, at: usize, len: usize) -> (*const u8, usize) {
        assert!(self.rows == rows && at + len <= self.stride);
        (self.bytes[at..].as_ptr(), self.stride)
    }
}
