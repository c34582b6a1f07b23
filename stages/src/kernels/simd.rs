//! The operations that a product kernel needs from an instruction set in addition to those on floats. A value of such a
//! type is the proof that the machine has it, so everything above the instruction sets' own files is safe code. Knows
//! no formats.
//!
//! One lane is one output: the `LANES` rows of a tile are multiplied side by side. So no sum ever crosses lanes, and
//! the order of operations is the same for every vector width.

mod matrices;

pub(super) use matrices::{MATRIX_BLOCKS, Matrices, MatrixScratch};

use super::Matrix;
use super::floats::Floats;

/// Lanes of the widest instruction set.
pub(super) const LANES_MAX: usize = 16;

/// Vectors of `LANES` words, one word for each output. All methods are single steps and must be inlined into
/// [`Simd::run`].
pub(super) trait Simd: Floats {
    /// Offset that [`Simd::dot_wide`] needs on every weight, as a power of two. `None` if it takes weights as they are.
    const WIDE_OFFSET: Option<u32>;
    /// True if two rows at once by [`Simd::dot_pair`] take less time than one after the other.
    const PAIRS: bool = false;
    /// True if the kernel takes rows four at a time. This is for instruction sets where a broadcast is a separate
    /// instruction: addresses may then be of any form, and the loop itself takes a tenth of a row's time.
    const FOURS: bool = false;
    /// `LANES` words of 32 bits, or of four bytes each.
    type Int: Copy;
    /// Matrix registers, or `Infallible` if there are none.
    type Matrices: Matrices<Self>;

    /// The matrix registers, if they are to multiply many rows.
    #[inline(always)]
    fn matrices(self) -> Option<Self::Matrices> {
        None
    }

    /// Runs `work` in a function that is compiled for the instruction set.
    fn run<W: WithSimd>(self, work: W);

    fn splat(self, word: i32) -> Self::Int;
    fn and(self, a: Self::Int, b: Self::Int) -> Self::Int;
    fn or(self, a: Self::Int, b: Self::Int) -> Self::Int;
    fn shl(self, a: Self::Int, bits: u32) -> Self::Int;
    /// Shifts right and shifts zeros in.
    fn shr(self, a: Self::Int, bits: u32) -> Self::Int;
    /// Shifts right and shifts the sign in.
    fn sar(self, a: Self::Int, bits: u32) -> Self::Int;
    fn sub(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// The low words of the products.
    fn mul_int(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// The bytes of `table` at the bytes of `indices`, which must be below 16.
    fn lookup(self, table: &[u8; 16], indices: Self::Int) -> Self::Int;
    /// Adds to each lane of `sum` the four products of its bytes of `weights` (0..=127) with the bytes of `x` (signed,
    /// not -128).
    fn dot(self, sum: Self::Int, weights: Self::Int, x: i32) -> Self::Int;
    /// As `dot`, for several vectors in sequence. `x` has four bytes for each vector. No weight is above `BYTE_MAX`, so
    /// products of small weights may be added up in less than 32 bits.
    #[inline(always)]
    fn dot_all<const BYTE_MAX: i32>(self, mut sum: Self::Int, weights: &[Self::Int], x: &[i8]) -> Self::Int {
        for (weights, x) in weights.iter().zip(x.as_chunks::<4>().0) {
            sum = self.dot(sum, *weights, word(x));
        }
        sum
    }
    /// As `dot`, for weights that `wide` prepared.
    fn dot_wide(self, sum: Self::Int, weights: Self::Int, x: i32) -> Self::Int;
    /// As `dot_wide`, for several vectors in sequence. `x` has four bytes for each vector.
    #[inline(always)]
    fn dot_wide_all(self, mut sum: Self::Int, weights: &[Self::Int], x: &[i8]) -> Self::Int {
        for (weights, x) in weights.iter().zip(x.as_chunks::<4>().0) {
            sum = self.dot_wide(sum, *weights, word(x));
        }
        sum
    }
    /// Prepares signed bytes for `dot_wide`.
    fn wide(self, weights: Self::Int) -> Self::Int;
    /// Prepares the weights of a block for `dot_pair`. They are in the form that `dot` or `dot_wide` takes.
    #[inline(always)]
    fn paired(self, weights: [Self::Int; 8]) -> [Self::Int; 8] {
        weights
    }
    /// As `dot`, or `dot_wide` if `WIDE`, for two rows at once and an even number of vectors in sequence that `paired`
    /// prepared. `x` has four bytes of each row for each vector.
    #[inline(always)]
    fn dot_pair<const WIDE: bool>(self, sums: [Self::Int; 2], weights: &[Self::Int], x: [&[i8]; 2]) -> [Self::Int; 2] {
        dot_by_rows::<Self, WIDE>(self, sums, weights, x)
    }

    /// Signed words as floats, rounded to nearest, ties to even.
    fn to_float(self, a: Self::Int) -> Self::Float;
    /// The bits of the words as floats.
    fn as_float(self, a: Self::Int) -> Self::Float;
    /// The 16-bit floats in the low halves of the words. The high halves must be zero.
    fn half_to_float(self, a: Self::Int) -> Self::Float;
    fn neg(self, a: Self::Float) -> Self::Float;

    /// Two bytes of every row of the tile, `at` bytes into the row.
    fn pair(self, tile: WeightTile<'_>, at: usize) -> Self::Int;
    /// Four bytes of every row.
    fn word(self, tile: WeightTile<'_>, at: usize) -> Self::Int;
    /// Sixteen bytes of every row, four to a vector.
    fn words(self, tile: WeightTile<'_>, at: usize) -> [Self::Int; 4];
    /// Two 16-bit floats of every row.
    #[inline(always)]
    fn two_halves(self, tile: WeightTile<'_>, at: usize) -> (Self::Float, Self::Float) {
        split_halves(self, self.word(tile, at))
    }
    /// Adds to each lane of `sum` the products of 32 weights of 4 bits (the low nibbles of 16 bytes, then the high
    /// ones) with the bytes of `x`. Gives the sums of unpacking and `dot_all`. A single row of activations does not
    /// repay unpacking.
    #[inline(always)]
    fn dot_nibbles(self, sum: Self::Int, tile: WeightTile<'_>, at: usize, x: &[i8; 32]) -> Self::Int {
        self.dot_all::<15>(sum, &nibbles(self, tile, at), x)
    }
    /// Sums of the products of two blocks of 32 weights of 4 bits with 32 bytes each. The first block is in the low
    /// nibbles of 32 bytes, the second in the high nibbles.
    #[inline(always)]
    fn dot_pairs(self, tile: WeightTile<'_>, at: usize, x: [&[i8; 32]; 2]) -> [Self::Int; 2] {
        let (first, second) = (nibbles(self, tile, at), nibbles(self, tile, at + 16));
        let mut sums = [self.splat(0); 2];
        for block in 0..2 {
            let part = |half: usize| &x[block][16 * half..16 * half + 16];
            sums[block] = self.dot_all::<15>(sums[block], &first[4 * block..4 * block + 4], part(0));
            sums[block] = self.dot_all::<15>(sums[block], &second[4 * block..4 * block + 4], part(1));
        }
        sums
    }
    /// As `dot_nibbles`, for 32 signed bytes. Each weight counts with the offset of `WIDE_OFFSET` added.
    #[inline(always)]
    fn dot_bytes(self, mut sum: Self::Int, tile: WeightTile<'_>, at: usize, x: &[i8; 32]) -> Self::Int {
        for half in 0..2 {
            let words = self.words(tile, at + 16 * half);
            for (index, weights) in words.into_iter().enumerate() {
                sum = self.dot_wide(sum, self.wide(weights), word(&x.as_chunks::<4>().0[4 * half + index]));
            }
        }
        sum
    }
}

/// [`Simd::dot_pair`] without special instructions: one row after the other.
#[inline(always)]
pub(super) fn dot_by_rows<S: Simd, const WIDE: bool>(
    s: S,
    mut sums: [S::Int; 2],
    weights: &[S::Int],
    x: [&[i8]; 2],
) -> [S::Int; 2] {
    for (sum, x) in sums.iter_mut().zip(x) {
        for (weights, x) in weights.iter().zip(x.as_chunks::<4>().0) {
            *sum = if WIDE { s.dot_wide(*sum, *weights, word(x)) } else { s.dot(*sum, *weights, word(x)) };
        }
    }
    sums
}

/// The two 16-bit floats of each word: the low one, then the high one.
#[inline(always)]
pub(super) fn split_halves<S: Simd>(s: S, word: S::Int) -> (S::Float, S::Float) {
    (s.half_to_float(s.and(word, s.splat(0xffff))), s.half_to_float(s.shr(word, 16)))
}

/// The low nibbles of 16 bytes of every row, then the high ones.
#[inline(always)]
pub(super) fn nibbles<S: Simd>(s: S, tile: WeightTile<'_>, at: usize) -> [S::Int; 8] {
    let [a, b, c, d] = s.words(tile, at);
    let mask = s.splat(0x0f0f_0f0f);
    let [e, f, g, h] = [s.shr(a, 4), s.shr(b, 4), s.shr(c, 4), s.shr(d, 4)];
    let mut words = [a, b, c, d, e, f, g, h];
    for word in &mut words {
        *word = s.and(*word, mask);
    }
    words
}

/// Four bytes, the first in the low byte.
#[inline(always)]
pub(super) fn word(bytes: &[i8; 4]) -> i32 {
    i32::from_le_bytes(bytes.map(i8::cast_unsigned))
}

/// Generic code to run on an instruction set.
pub(super) trait WithSimd {
    fn run<S: Simd>(self, simd: S);
}

/// The `LANES` neighbouring rows of a matrix that one vector holds.
#[derive(Clone, Copy)]
pub(super) struct WeightTile<'a> {
    rows: usize,
    stride: usize,
    bytes: &'a [u8],
}

/// 32 weights of each row of a tile.
#[derive(Clone, Copy)]
pub(super) struct WeightLanes<S: Simd> {
    /// Word `i` holds bytes `4 i .. 4 i + 4` of every row. Each byte is a weight plus an offset: that of the format, or
    /// `Simd::WIDE_OFFSET` for weights of 8 bits.
    pub(super) words: [S::Int; 8],
    /// Value of one integer step, for each half of 16.
    pub(super) scale: [S::Float; 2],
    /// Minimum that is added to every value, for each half of 16.
    pub(super) min: [S::Float; 2],
}

// === impl WeightTile ===

impl<'a> WeightTile<'a> {
    /// The `rows` rows from `first` on.
    ///
    /// # Panics
    /// If the matrix has fewer rows.
    #[inline(always)]
    pub(super) fn of(matrix: &Matrix<'a>, first: usize, rows: usize) -> Self {
        let stride = matrix.row_bytes();
        Self { rows, stride, bytes: &matrix.bytes()[first * stride..(first + rows) * stride] }
    }

    /// `rows` rows of `stride` bytes each.
    ///
    /// # Panics
    /// If `bytes` has another length.
    #[inline(always)]
    pub(super) fn from_rows(bytes: &'a [u8], rows: usize, stride: usize) -> Self {
        assert_eq!(bytes.len(), rows * stride);
        Self { rows, stride, bytes }
    }

    /// The bytes of the row of a lane.
    ///
    /// # Panics
    /// If the tile has no such row.
    #[inline(always)]
    pub(super) fn row(&self, lane: usize) -> &'a [u8] {
        &self.bytes[lane * self.stride..(lane + 1) * self.stride]
    }

    /// A pointer `at` bytes into the first of `rows` rows, and the distance in bytes from one row to the next. `len`
    /// bytes can be read there in each row.
    ///
    /// # Panics
    /// If the tile does not have `rows` rows, or its rows are shorter.
    #[inline(always)]
    pub(super) fn lanes(&self, rows: usize, at: usize, len: usize) -> (*const u8, usize) {
        assert!(self.rows == rows && at + len <= self.stride);
        (self.bytes[at..].as_ptr(), self.stride)
    }
}

// === impl WeightLanes ===

impl<S: Simd> WeightLanes<S> {
    /// All zero, to be overwritten.
    #[inline(always)]
    pub(super) fn zero(s: S) -> Self {
        Self { words: [s.splat(0); 8], scale: [s.splat_float(0.0); 2], min: [s.splat_float(0.0); 2] }
    }
}
