//! Activations as input of a product: rows of floats, and their 8-bit form, which is computed if a weight format needs
//! it.
//!
//! Every 32 values share one scale (a float, not rounded to 16 bits), independent of the weights' format. So a row is
//! quantised once for all its products, and its bits do not depend on the other rows in the batch.

use std::ops::Range;

use super::ThreadPool;
use super::split::Split;

/// Values in one quantised block.
pub(super) const BLOCK: usize = 32;

/// 32 activations in 8 bits: one cache line, so that a product touches one line per row and block.
///
/// `neg` and `sum` hold values for the whole block and for its halves of 16, because some formats scale every 16
/// weights. Indices 0 and 1 are the halves, 2 is the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(super) struct Quantised {
    /// The values as integers, -127 to 127.
    pub(super) bytes: [i8; BLOCK],
    /// Value of one integer step. NaN if a value was not finite.
    pub(super) scale: f32,
    /// Negated sums of the integers, for weights stored with an offset.
    pub(super) neg: [i32; 3],
    /// Sums of the values (`scale` x integer sum), for weights with a minimum.
    pub(super) sum: [f32; 3],
    unused: u32,
}

/// [`Quantised::columns`], or the same function compiled for an instruction set.
pub(super) type Quantiser = fn(&[f32], usize, &mut [Quantised], usize);

/// Scratch for a product's input: `rows` x `cols` activations. It grows to the largest input seen and is then reused.
#[derive(Debug, Default)]
pub struct Rows {
    rows: usize,
    cols: usize,
    floats: Vec<f32>,
    /// `[chunk][block][row]`, because a kernel multiplies a tile of weights with the same block of all rows of a chunk,
    /// one row after the other.
    quantised: Vec<Quantised>,
    /// True if `quantised` belongs to the present `floats`.
    up_to_date: bool,
}

// === impl Rows ===

impl Rows {
    /// Empty scratch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `rows` x `cols` values, row-major.
    ///
    /// # Panics
    /// If `values` has another length.
    pub fn load(&mut self, values: &[f32], rows: usize, cols: usize) {
        self.prepare(rows, cols).copy_from_slice(values);
    }

    /// Buffer for `rows` x `cols` values, row-major, which the caller writes in place. Values left unwritten are
    /// unspecified (zero or from an earlier input).
    pub fn prepare(&mut self, rows: usize, cols: usize) -> &mut [f32] {
        let len = rows * cols;
        grow(&mut self.floats, len, 0.0);
        (self.rows, self.cols, self.up_to_date) = (rows, cols, false);
        &mut self.floats[..len]
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.floats[..self.rows * self.cols]
    }

    /// The rows in chunks. A tile of weights is multiplied with all rows of a chunk.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, step) = (self.rows, CHUNK_ROWS_MAX);
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }

    /// A chunk's rows, quantised: `[block][row]`.
    ///
    /// # Panics
    /// Unless [`Rows::quantise`] was called for these values.
    pub(super) fn quantised(&self, chunk: &Range<usize>) -> &[Quantised] {
        assert!(self.up_to_date, "rows are quantised before they are multiplied");
        let blocks = self.cols / BLOCK;
        &self.quantised[chunk.start * blocks..chunk.end * blocks]
    }

    /// As `quantised`, followed by [`MATRIX_ROWS`] blocks of unspecified content. Matrix registers take that many
    /// blocks at once and may read past the last row.
    pub(super) fn quantised_padded(&self, chunk: &Range<usize>) -> &[Quantised] {
        let blocks = self.cols / BLOCK;
        &self.quantised[chunk.start * blocks..][..self.quantised(chunk).len() + MATRIX_ROWS]
    }

    /// Computes the quantised form unless it is up to date. `quantiser` is [`Quantised::columns`], possibly compiled
    /// for an instruction set.
    pub(super) fn quantise(&mut self, pool: &ThreadPool, quantiser: Quantiser) {
        let (rows, cols) = (self.rows, self.cols);
        assert!(cols.is_multiple_of(BLOCK), "quantised weights have whole blocks of 32, found {cols} columns");
        if self.up_to_date {
            return;
        }
        let blocks = cols / BLOCK;
        grow(&mut self.quantised, rows * blocks + MATRIX_ROWS, Quantised::ZERO);
        let floats = &self.floats[..rows * cols];
        let (chunks, step) = (rows.div_ceil(CHUNK_ROWS_MAX), CHUNK_ROWS_MAX);
        let out = Split::new(&mut self.quantised[..rows * blocks]);
        let parts = if rows < PARALLEL_ROWS_MIN { 1 } else { pool.threads().min(blocks) };
        pool.run(parts, &|part| {
            let own = blocks * part / parts..blocks * (part + 1) / parts;
            for chunk in (0..chunks).map(|chunk| chunk * step..((chunk + 1) * step).min(rows)) {
                for first in own.clone().step_by(BLOCKS_AT_ONCE) {
                    let last = (first + BLOCKS_AT_ONCE).min(own.end);
                    let start = chunk.start * blocks;
                    // SAFETY: the parts take blocks of a chunk without overlap.
                    let out = unsafe { out.part(start + first * chunk.len()..start + last * chunk.len()) };
                    quantiser(&floats[chunk.start * cols + first * BLOCK..], cols, out, chunk.len());
                }
            }
        });
        self.up_to_date = true;
    }
}

/// Makes `values` at least `len` long, and reserves no more than that.
fn grow<T: Clone>(values: &mut Vec<T>, len: usize, value: T) {
    if values.len() < len {
        values.reserve_exact(len - values.len());
        values.resize(len, value);
    }
}

/// Maximum number of rows that are multiplied with a tile of weights together: enough that unpacking the weights costs
/// little compared with multiplying them, and few enough that their sums stay in the first-level cache.
pub(super) const CHUNK_ROWS_MAX: usize = 128;

/// Rows that matrix registers multiply at once.
pub(super) const MATRIX_ROWS: usize = 16;

/// Blocks of a row that are quantised one after the other, so that a kilobyte is read in sequence.
const BLOCKS_AT_ONCE: usize = 8;

/// Fewer rows than this are quantised by one thread, because that takes less time than waking another.
const PARALLEL_ROWS_MIN: usize = 16;

// === impl Quantised ===

impl Quantised {
    pub(super) const ZERO: Self = Self { bytes: [0; BLOCK], scale: 0.0, neg: [0; 3], sum: [0.0; 3], unused: 0 };

    /// Quantises neighbouring blocks of `rows` rows into `out` (`[block][row]`). The first row starts at the start of
    /// `values`, and each next row starts `stride` values later.
    #[inline(always)]
    pub(super) fn columns(values: &[f32], stride: usize, out: &mut [Self], rows: usize) {
        Self::columns_by(values, stride, out, rows, Self::of);
    }

    /// As `columns`, with a function `of` that may be written for an instruction set.
    #[inline(always)]
    pub(super) fn columns_by(
        values: &[f32],
        stride: usize,
        out: &mut [Self],
        rows: usize,
        of: impl Fn(&[f32; BLOCK]) -> Self,
    ) {
        for row in 0..rows {
            let blocks = values[row * stride..].as_chunks::<BLOCK>().0;
            for (out, block) in out[row..].iter_mut().step_by(rows).zip(blocks) {
                *out = of(block);
            }
        }
    }

    /// Quantises 32 values. The largest magnitude becomes 127. The rest is rounded to nearest, ties to even.
    #[inline(always)]
    pub(super) fn of(values: &[f32; BLOCK]) -> Self {
        // Magnitudes order like their bits, and infinities and NaNs order above all finite values.
        let largest = values.iter().fold(0, |largest, value| largest.max((value.to_bits() & 0x7fff_ffff) as i32));
        let steps = match Self::steps(largest) {
            Ok(steps) => steps,
            Err(block) => return block,
        };
        // Adding 1.5 * 2^23 leaves the integer nearest to the product in the low mantissa bits.
        let integers = values.map(|value| ((value * steps + 12_582_912.0).to_bits() as i32).wrapping_sub(0x4b40_0000));
        let (low, high) = (integers[..16].iter().sum(), integers[16..].iter().sum());
        Self::assembled(largest, integers.map(|integer| integer as i8), low, high)
    }

    /// Integer steps in a value of one, if the largest magnitude has the bits `largest`. `Err` has the finished block
    /// if there is nothing to scale: values are not finite, all zero or too small.
    #[inline(always)]
    pub(super) fn steps(largest: i32) -> Result<f32, Self> {
        if largest >= f32::INFINITY.to_bits() as i32 {
            return Err(Self { scale: f32::NAN, sum: [f32::NAN; 3], ..Self::ZERO });
        }
        let steps = 127.0 / f32::from_bits(largest as u32);
        // Not finite: all values are zero, or so small (under 4e-37) that they do not change a product with a weight.
        if steps.is_finite() { Ok(steps) } else { Err(Self::ZERO) }
    }

    /// The block of these integers. `low` and `high` are the sums of its halves, `largest` the bits of the largest
    /// magnitude.
    #[inline(always)]
    pub(super) fn assembled(largest: i32, bytes: [i8; BLOCK], low: i32, high: i32) -> Self {
        let scale = f32::from_bits(largest as u32) / 127.0;
        let sums = [low, high, low + high];
        Self { bytes, scale, neg: sums.map(|sum| -sum), sum: sums.map(|sum| scale * sum as f32), unused: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_one_cache_line() {
        assert_eq!(size_of::<Quantised>(), 64);
    }

    #[test]
    fn the_largest_magnitude_becomes_127() {
        let values: [f32; 32] = std::array::from_fn(|index| index as f32 - 20.0);
        let block = Quantised::of(&values);
        let integers = block.bytes.map(i32::from);
        assert_eq!(integers[0], -127);
        assert_eq!(integers[20], 0);
        assert_eq!(
            block.neg,
            [-integers[..16].iter().sum::<i32>(), -integers[16..].iter().sum::<i32>(), -integers.iter().sum::<i32>()]
        );
        for (integer, value) in integers.iter().zip(values) {
            assert!((*integer as f32 * block.scale - value).abs() <= block.scale * 0.5001);
        }
    }

    #[test]
    fn ties_round_to_even() {
        let mut values = [0.0; 32];
        values[0] = 127.0;
        values[1] = 2.5;
        values[2] = -3.5;
        assert_eq!(Quantised::of(&values).bytes[..3], [127, 2, -4]);
    }

    #[test]
    fn a_value_that_is_not_finite_makes_its_block_nan_and_zeros_stay_zero() {
        let mut values = [1.0; 32];
        values[31] = f32::NEG_INFINITY;
        assert!(Quantised::of(&values).scale.is_nan());
        values[31] = f32::NAN;
        assert!(Quantised::of(&values).sum[0].is_nan());
        assert_eq!(Quantised::of(&[0.0; 32]), Quantised::ZERO);
        assert_eq!(Quantised::of(&[1e-40; 32]), Quantised::ZERO);
    }
}
