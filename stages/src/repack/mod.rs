//! Matrices that lie in files in an order that no kernel reads, written again as blocks of a format that has one.
//!
//! The numbers stay exactly those of the file: integers are moved, and scales and minimums are widened to single
//! precision, which holds them exactly. This module is pure: it takes bytes and knows neither files nor names of
//! tensors.

mod affine;
mod awq;
mod fp8;
mod gptq;
mod mxfp4;
#[cfg(test)]
mod tests;
mod transposed;

use std::ops::Range;

use crate::format::Format;

/// The order of a matrix's values in its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Rows of integers of `bits` bits, the lowest bits of a byte first; scales, then minimums, `[row][group]`. MLX's.
    Affine {
        /// 4 or 8.
        bits: u32,
        /// Values that share a scale: 32, 64 or 128.
        group: u64,
        /// Type of scales and minimums: F32, F16 or BF16.
        factors: Format,
    },
    /// Rows of floats of 4 bits (E2M1), two in a byte, the first in its low bits; exponents, `[row][group of 32]`.
    Mxfp4,
    /// Rows of floats of 8 bits (E4M3); scales, `[block of rows][block of columns]`.
    Fp8 {
        /// Rows and columns of a block. The columns are a multiple of 64.
        block: [u64; 2],
        /// Type of scales.
        factors: Format,
    },
    /// Columns of integers of 4 bits: words of eight neighbours of a column, `[column / 8][row]`; zeros,
    /// `[group][row / 8]`; scales, `[group][row]`; in some files the group of each column, as words.
    Gptq {
        /// Values that share a scale: a multiple of 32.
        group: u64,
        /// Number that each stored zero is less than the real one.
        zeros_below: u32,
        /// Type of scales.
        factors: Format,
        /// True if there is the group of each column, which must be that of columns in their order.
        listed: bool,
    },
    /// Columns of integers of 4 bits: words of eight rows in AWQ's order, `[column][row / 8]`; zeros,
    /// `[group][row / 8]`; scales, `[group][row]`.
    Awq {
        /// Values that share a scale: a multiple of 32.
        group: u64,
        /// Type of scales.
        factors: Format,
    },
    /// Floats, `[column][row]`.
    Transposed(Format),
}

/// A matrix to write again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repacking {
    /// The order of its values.
    pub encoding: Encoding,
    /// Values in a row.
    pub cols: u64,
    /// Rows that the tensors hold.
    pub stored_rows: u64,
    /// First of the rows that are taken.
    pub first: u64,
    /// Every which row is taken, from the first on.
    pub step: u64,
    /// Rows that are taken.
    pub rows: u64,
}

/// Stored numbers that cannot be written again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RepackError {
    /// A number that no weight can have.
    #[error("expected finite {kind}, found {found} in row {row}: fetch the file again")]
    NotFinite {
        /// The kind of numbers.
        kind: &'static str,
        /// The stored row.
        row: u64,
        /// The number.
        found: f32,
    },
    /// Columns whose groups are not neighbours, as they are after quantisation in the order of activations.
    #[error(
        "expected group {expected} of column {column}, as columns in the order of activations (desc_act) are not \
         supported, found {found}: use a file without that order"
    )]
    Order {
        /// The column.
        column: u64,
        /// Its group in the order of columns.
        expected: u64,
        /// Its group in the file.
        found: i32,
    },
}

/// Rows that are written together, so that what lies between their values is read from the caches.
const BAND_ROWS: u64 = 64;

// === impl Encoding ===

impl Encoding {
    /// The format of the blocks that hold its values exactly.
    pub fn format(self) -> Format {
        match self {
            Self::Affine { bits: 4, group, .. } | Self::Gptq { group, .. } | Self::Awq { group, .. } => {
                if group.is_multiple_of(128) {
                    Format::Affine4G128
                } else if group.is_multiple_of(64) {
                    Format::Affine4G64
                } else {
                    Format::Affine4G32
                }
            }
            Self::Affine { group, .. } if group.is_multiple_of(64) => Format::Affine8G64,
            Self::Affine { .. } => Format::Affine8G32,
            Self::Mxfp4 => Format::Mxfp4,
            Self::Fp8 { .. } => Format::F8E4M3,
            Self::Transposed(floats) => floats,
        }
    }

    /// The bytes of each tensor that holds a matrix of `rows` rows of `cols` values. `None` if they do not fit 64 bits.
    pub fn stored_bytes(self, rows: u64, cols: u64) -> Option<Vec<u64>> {
        let values = rows.checked_mul(cols)?;
        let floats = |factors: Format, count: u64| count.checked_mul(factors.block_bytes() as u64);
        Some(match self {
            Self::Affine { bits, group, factors } => {
                let factors = floats(factors, values / group)?;
                vec![values.checked_mul(u64::from(bits))? / 8, factors, factors]
            }
            Self::Mxfp4 => vec![values / 2, values / 32],
            Self::Fp8 { block: [high, wide], factors } => {
                vec![values, floats(factors, rows.div_ceil(high).checked_mul(cols.div_ceil(wide))?)?]
            }
            Self::Gptq { group, factors, listed, .. } => {
                let mut all = vec![values / 2, values / group / 2, floats(factors, values / group)?];
                all.extend(listed.then_some(cols.checked_mul(4)?));
                all
            }
            Self::Awq { group, factors } => vec![values / 2, values / group / 2, floats(factors, values / group)?],
            Self::Transposed(format) => vec![floats(format, values)?],
        })
    }
}

// === impl Repacking ===

impl Repacking {
    /// All rows of a matrix.
    pub fn whole(encoding: Encoding, rows: u64, cols: u64) -> Self {
        Self { encoding, cols, stored_rows: rows, first: 0, step: 1, rows }
    }

    /// Format of the blocks.
    pub fn format(&self) -> Format {
        self.encoding.format()
    }

    /// Bytes of a row's blocks. `None` if a row is not whole blocks.
    pub fn row_bytes(&self) -> Option<u64> {
        self.format().row_bytes(usize::try_from(self.cols).ok()?).map(|bytes| bytes as u64)
    }

    /// The bytes of each tensor that row `row` needs, and what makes the row of them. `None` if the values of a row are
    /// not neighbours.
    pub fn of_row(&self, row: u64) -> Option<(Self, Vec<Range<u64>>)> {
        let stored = self.first + row * self.step;
        let places = match self.encoding {
            Encoding::Affine { .. } | Encoding::Mxfp4 => {
                let bytes = self.encoding.stored_bytes(1, self.cols)?;
                bytes.into_iter().map(|bytes| stored * bytes..(stored + 1) * bytes).collect()
            }
            Encoding::Fp8 { block: [high, wide], factors } => {
                let of_block = self.cols.div_ceil(wide) * factors.block_bytes() as u64;
                let block = stored / high;
                vec![stored * self.cols..(stored + 1) * self.cols, block * of_block..(block + 1) * of_block]
            }
            Encoding::Gptq { .. } | Encoding::Awq { .. } | Encoding::Transposed(_) => return None,
        };
        Some((Self::whole(self.encoding, 1, self.cols), places))
    }

    /// Writes the blocks of `rows`, counted among those that are taken, to `out`.
    ///
    /// # Errors
    /// [`RepackError`] for a scale, a minimum or a weight that is no finite number, and for columns in another order.
    ///
    /// # Panics
    /// If the tensors have not the bytes of [`Encoding::stored_bytes`], or `out` not those of the rows.
    pub fn write(&self, tensors: &[&[u8]], rows: Range<u64>, out: &mut [u8]) -> Result<(), RepackError> {
        let row_bytes = self.row_bytes().expect("rows are whole blocks") as usize;
        let expected = self.encoding.stored_bytes(self.stored_rows, self.cols).expect("checked");
        let found: Vec<u64> = tensors.iter().map(|tensor| tensor.len() as u64).collect();
        assert_eq!(found, expected, "bytes of the tensors");
        if let (Encoding::Gptq { group, .. }, [.., index]) = (self.encoding, tensors)
            && tensors.len() > gptq::PARTS
        {
            gptq::check_order(index, group)?;
        }
        assert_eq!(out.len() as u64, (rows.end - rows.start) * row_bytes as u64, "bytes of the rows");
        for start in rows.clone().step_by(BAND_ROWS as usize) {
            let end = (start + BAND_ROWS).min(rows.end);
            let place = (start - rows.start) as usize * row_bytes..(end - rows.start) as usize * row_bytes;
            let band = Band { repacking: self, row_bytes, rows: start..end };
            match self.encoding {
                Encoding::Affine { bits, group, factors } => {
                    affine::write(&band, (bits, group, factors), tensors, &mut out[place])?;
                }
                Encoding::Mxfp4 => mxfp4::write(&band, tensors, &mut out[place])?,
                Encoding::Fp8 { block, factors } => fp8::write(&band, (block, factors), tensors, &mut out[place])?,
                Encoding::Gptq { group, zeros_below, factors, .. } => {
                    gptq::write(&band, (group, zeros_below, factors), tensors, &mut out[place])?;
                }
                Encoding::Awq { group, factors } => awq::write(&band, (group, factors), tensors, &mut out[place])?,
                Encoding::Transposed(format) => transposed::write(&band, format, tensors, &mut out[place]),
            }
        }
        Ok(())
    }
}

/// Rows that are written together.
struct Band<'a> {
    repacking: &'a Repacking,
    row_bytes: usize,
    rows: Range<u64>,
}

// === impl Band ===

impl Band<'_> {
    /// Values in a row.
    fn cols(&self) -> usize {
        self.repacking.cols as usize
    }

    /// Rows that the tensors hold.
    fn stored_rows(&self) -> usize {
        self.repacking.stored_rows as usize
    }

    /// The stored rows that it takes, each with its place in the output.
    fn stored(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Repacking { first, step, .. } = *self.repacking;
        let row_bytes = self.row_bytes;
        self.rows.clone().enumerate().map(move |(index, row)| ((first + row * step) as usize, index * row_bytes))
    }
}

/// Float `index` of `bytes`, which must be finite.
fn finite(kind: &'static str, row: usize, format: Format, bytes: &[u8], index: usize) -> Result<f32, RepackError> {
    let mut value = [0.0];
    let size = format.block_bytes();
    crate::kernels::dequantise_block_bytes(format, &bytes[index * size..(index + 1) * size], &mut value);
    let [found] = value;
    if found.is_finite() { Ok(found) } else { Err(RepackError::NotFinite { kind, row: row as u64, found }) }
}

/// Writes a scale and a minimum to the front of a block.
fn put_factors(block: &mut [u8], scale: f32, minimum: f32) {
    block[..4].copy_from_slice(&scale.to_le_bytes());
    block[4..8].copy_from_slice(&minimum.to_le_bytes());
}

/// Nibble `index` of words that hold eight each, the lowest bits first.
fn nibble(words: &[u8], index: usize) -> u8 {
    words[index / 2] >> (4 * (index % 2)) & 15
}

/// 32 values of 4 bits, of which neighbours share a byte, as kernels take them: the first half in the low bits of 16
/// bytes, the second in the high ones.
fn put_nibbles(pairs: [u8; 16], out: &mut [u8]) {
    for (index, out) in out.iter_mut().enumerate() {
        let value = |index: usize| pairs[index / 2] >> (4 * (index % 2)) & 15;
        *out = value(index) | value(index + 16) << 4;
    }
}
