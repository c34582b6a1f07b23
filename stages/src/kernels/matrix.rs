//! A weight matrix in its file layout: borrowed rows of ggml blocks. Does not know how the matrix is used.

use crate::format::Format;

/// `rows` x `cols` weights, row-major, in the blocks of one format. The bytes need no alignment.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    format: Format,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

/// Reason why bytes are not such a matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// The row does not end on a block boundary.
    #[error("a row of {cols} values is not whole {format} blocks of {block}")]
    Cols {
        /// The format's name.
        format: &'static str,
        /// Values in a row.
        cols: usize,
        /// Values in a block.
        block: usize,
    },
    /// The bytes are too few or too many.
    #[error("{rows} x {cols} values in {format} are {expected} bytes, found {found}")]
    Bytes {
        /// The format's name.
        format: &'static str,
        /// Rows requested.
        rows: usize,
        /// Values in a row.
        cols: usize,
        /// Bytes that the rows take.
        expected: u128,
        /// Bytes found.
        found: usize,
    },
}

// === impl Matrix ===

impl<'a> Matrix<'a> {
    /// Takes `bytes` as `rows` x `cols` weights.
    ///
    /// # Errors
    /// If a row is not whole blocks, or the length of `bytes` is not exactly that of the rows.
    pub fn new(format: Format, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self, MatrixError> {
        let name = format.name();
        let Some(row_bytes) = format.row_bytes(cols) else {
            return Err(MatrixError::Cols { format: name, cols, block: format.block_values() });
        };
        let expected = row_bytes as u128 * rows as u128;
        if expected != bytes.len() as u128 {
            return Err(MatrixError::Bytes { format: name, rows, cols, expected, found: bytes.len() });
        }
        Ok(Self { format, rows, cols, row_bytes, bytes })
    }

    /// Number of rows, which are the outputs of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row, which are the inputs of a product.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Storage format of the values.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes in a row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// All bytes, row after row.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.bytes[row * self.row_bytes..(row + 1) * self.row_bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_another_length_are_refused() {
        let error = Matrix::new(Format::Q8_0, 2, 64, &[0; 135]).unwrap_err();
        assert_eq!(error.to_string(), "2 x 64 values in Q8_0 are 136 bytes, found 135");
        let error = Matrix::new(Format::Q6K, 2, 64, &[]).unwrap_err();
        assert_eq!(error.to_string(), "a row of 64 values is not whole Q6_K blocks of 256");
        assert!(Matrix::new(Format::F32, usize::MAX, 1 << 40, &[]).is_err());
    }
}
