//! Activations on their way into a product: rows of floats, and their 8-bit form made when a weight format wants it.
//!
//! Every 32 values share one scale of their own (a float, not rounded to 16 bits), whatever the weights' format; so a
//! row is quantised once for all its products, and a row's bits do not depend on its neighbours.

use super::Pool;
use super::disjoint::Disjoint;

/// Values in one quantised block.
pub(super) const BLOCK: usize = 32;

/// 32 activations in 8 bits: one cache line, so that a product touches one line per row and block.
///
/// `neg` and `sum` are kept for the whole block and for its halves of 16, since some formats scale every 16 weights:
/// index 0 and 1 are the halves, 2 is the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(super) struct Quantised {
    /// The values, four signed bytes to a word, the first in the low byte.
    pub(super) words: [i32; 8],
    /// What one step of a value is worth; NaN when a value was not finite.
    pub(super) scale: f32,
    /// Minus the sums of the integers, for weights stored with an offset.
    pub(super) neg: [i32; 3],
    /// The sums as values (`scale` x sum), for weights with a minimum.
    pub(super) sum: [f32; 3],
    unused: u32,
}

/// Scratch for a product's input: `rows` x `cols` activations. It grows to the largest input seen and is then reused.
#[derive(Debug, Default)]
pub struct Rows {
    rows: usize,
    cols: usize,
    floats: Vec<f32>,
    /// `[block][row]`: a tile of weights meets the same block of all rows one after the other.
    quantised: Vec<Quantised>,
    /// Whether `quantised` belongs to the present `floats`.
    fresh: bool,
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
    /// When `values` has another length.
    pub fn load(&mut self, values: &[f32], rows: usize, cols: usize) {
        self.prepare(rows, cols).copy_from_slice(values);
    }

    /// Room for `rows` x `cols` values, row-major, to be written in place: what is left unwritten is unspecified (zero
    /// or an earlier input's).
    pub fn prepare(&mut self, rows: usize, cols: usize) -> &mut [f32] {
        let len = rows * cols;
        if self.floats.len() < len {
            self.floats.resize(len, 0.0);
        }
        (self.rows, self.cols, self.fresh) = (rows, cols, false);
        &mut self.floats[..len]
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.floats[..self.rows * self.cols]
    }

    /// The quantised form, `[block][row]`; empty until [`Rows::quantise`] was called for these values.
    pub(super) fn quantised(&self) -> &[Quantised] {
        if self.fresh { &self.quantised[..self.rows * (self.cols / BLOCK)] } else { &[] }
    }

    /// Makes the quantised form unless it is there. `block` is [`Quantised::of`], perhaps compiled for better hardware.
    pub(super) fn quantise(&mut self, pool: &Pool, block: fn(&[f32], &mut [Quantised], usize)) {
        let (rows, cols) = (self.rows, self.cols);
        assert!(cols.is_multiple_of(BLOCK), "quantised weights have whole blocks of 32, found {cols} columns");
        if self.fresh {
            return;
        }
        let blocks = cols / BLOCK;
        if self.quantised.len() < rows * blocks {
            self.quantised.resize(rows * blocks, Quantised::ZERO);
        }
        let floats = &self.floats[..rows * cols];
        let out = Disjoint::new(&mut self.quantised[..rows * blocks]);
        let parts = if rows < PARALLEL_ROWS_MIN { 1 } else { pool.threads().min(blocks) };
        pool.run(parts, &|part| {
            for index in blocks * part / parts..blocks * (part + 1) / parts {
                // SAFETY: block columns are dealt out to the parts without overlap.
                let column = unsafe { out.part(index * rows..(index + 1) * rows) };
                block(&floats[index * BLOCK..], column, cols);
            }
        });
        self.fresh = true;
    }
}

/// Fewer rows than this are quantised by one thread: it takes less time than waking another.
const PARALLEL_ROWS_MIN: usize = 16;

// === impl Quantised ===

impl Quantised {
    pub(super) const ZERO: Self = Self { words: [0; 8], scale: 0.0, neg: [0; 3], sum: [0.0; 3], unused: 0 };

    /// Quantises one block column: 32 values at the start of `values` and of every `stride` values after.
    #[inline(always)]
    pub(super) fn column(values: &[f32], out: &mut [Self], stride: usize) {
        for (row, out) in out.iter_mut().enumerate() {
            let values = &values[row * stride..][..BLOCK];
            *out = Self::of(values.try_into().expect("a block of 32"));
        }
    }

    /// Quantises 32 values: the largest magnitude becomes 127, the rest is rounded to nearest, ties to even.
    #[inline(always)]
    pub(super) fn of(values: &[f32; BLOCK]) -> Self {
        // Magnitudes compare like their bits, and anything not finite compares above all that is.
        let mut largest = 0;
        for value in values {
            largest = largest.max((value.to_bits() & 0x7fff_ffff) as i32);
        }
        if largest >= f32::INFINITY.to_bits() as i32 {
            return Self { scale: f32::NAN, sum: [f32::NAN; 3], ..Self::ZERO };
        }
        let largest = f32::from_bits(largest as u32);
        let steps = 127.0 / largest;
        if !steps.is_finite() {
            // All zero, or so small (under 4e-37) that no product with a weight could tell.
            return Self::ZERO;
        }
        let mut integers = [0_i32; BLOCK];
        for (integer, value) in integers.iter_mut().zip(values) {
            // 1.5 * 2^23: adding it leaves the integer nearest to the product in the low mantissa bits.
            *integer = ((value * steps + 12_582_912.0).to_bits() as i32).wrapping_sub(0x4b40_0000);
        }
        let low: i32 = integers[..16].iter().sum();
        let high: i32 = integers[16..].iter().sum();
        let mut words = [0_i32; 8];
        for (word, four) in words.iter_mut().zip(integers.as_chunks::<4>().0) {
            *word = (four[0] & 0xff) | (four[1] & 0xff) << 8 | (four[2] & 0xff) << 16 | four[3] << 24;
        }
        let scale = largest / 127.0;
        let sums = [low, high, low + high];
        Self { words, scale, neg: sums.map(|sum| -sum), sum: sums.map(|sum| scale * sum as f32), unused: 0 }
    }

    /// The 32 integers.
    pub(super) fn integers(&self) -> [i32; BLOCK] {
        std::array::from_fn(|index| i32::from(self.words[index / 4].to_le_bytes()[index % 4].cast_signed()))
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
    fn the_largest_value_takes_all_of_the_range() {
        let values: [f32; 32] = std::array::from_fn(|index| index as f32 - 20.0);
        let block = Quantised::of(&values);
        let integers = block.integers();
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
    fn halves_go_to_the_even_neighbour() {
        let mut values = [0.0; 32];
        values[0] = 127.0;
        values[1] = 2.5;
        values[2] = -3.5;
        assert_eq!(Quantised::of(&values).integers()[..3], [127, 2, -4]);
    }

    #[test]
    fn what_is_not_finite_poisons_its_block_and_zeros_stay_zero() {
        let mut values = [1.0; 32];
        values[31] = f32::NEG_INFINITY;
        assert!(Quantised::of(&values).scale.is_nan());
        values[31] = f32::NAN;
        assert!(Quantised::of(&values).sum[0].is_nan());
        assert_eq!(Quantised::of(&[0.0; 32]), Quantised::ZERO);
        assert_eq!(Quantised::of(&[1e-40; 32]), Quantised::ZERO);
    }
}
