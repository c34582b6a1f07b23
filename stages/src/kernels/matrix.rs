//! A matrix over bytes somebody else holds.

use super::Format;

/// Rows of stored values.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// How each row is stored.
    pub format: Format,
    /// Rows.
    pub rows: usize,
    /// Values in a row.
    pub cols: usize,
    /// All rows, one after the other.
    pub bytes: &'a [u8],
}

// === impl Matrix ===

impl<'a> Matrix<'a> {
    /// A matrix of `rows` x `cols` values over `bytes`.
    pub fn new(format: Format, rows: usize, cols: usize, bytes: &'a [u8]) -> Self {
        Self { format, rows, cols, bytes }
    }
}
