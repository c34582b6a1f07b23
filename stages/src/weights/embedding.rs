//! Rows of the embedding table, read from the file on demand.
//!
//! The table is the largest tensor of a small model, and a token needs one row of it. So it is not mapped: one
//! positioned read through the page cache reads a row, which counts in no process's resident set.

use std::io;
use std::os::unix::fs::FileExt;

use super::file::ModelFile;
use crate::checkpoint::{Piece, TensorInfo};
use crate::kernels::dequantise_block_bytes;

/// The embedding table of a model file.
#[derive(Debug, Clone)]
pub struct EmbeddingRows {
    file: ModelFile,
    table: TensorInfo,
    piece: Piece,
}

/// Errors of a row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// No such token.
    #[error("token {token} has no embedding: expected one below {rows}")]
    Token {
        /// The token.
        token: u32,
        /// Rows of the table.
        rows: u64,
    },
    /// The destination has the wrong length.
    #[error("an embedding row has {expected} values: expected room for as many, found {found}")]
    Width {
        /// Values in a row.
        expected: u64,
        /// Length of the destination.
        found: usize,
    },
    /// Reading the file failed.
    #[error("cannot read the embedding of token {token}")]
    Read {
        /// The token.
        token: u32,
        /// The cause.
        #[source]
        cause: io::Error,
    },
}

// === impl EmbeddingRows ===

impl EmbeddingRows {
    /// The rows of `table`. `None` for a table that does not lie in one piece of a file.
    pub(super) fn new(file: ModelFile, table: TensorInfo) -> Option<Self> {
        match *table.pieces() {
            [piece] => Some(Self { file, table, piece }),
            _ => None,
        }
    }

    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.table.cols() as usize
    }

    /// Number of rows, which is the number of tokens in the vocabulary.
    pub fn rows(&self) -> u64 {
        self.table.rows()
    }

    /// Reads the embedding of `token` into `row`.
    ///
    /// # Errors
    /// [`RowError`] when there is no such token, `row` has the wrong length, or reading the file fails.
    pub fn read(&self, token: u32, row: &mut [f32]) -> Result<(), RowError> {
        let (rows, cols) = (self.table.rows(), self.table.cols());
        if u64::from(token) >= rows {
            return Err(RowError::Token { token, rows });
        }
        if row.len() as u64 != cols {
            return Err(RowError::Width { expected: cols, found: row.len() });
        }
        let row_bytes = self.table.bytes / rows;
        let mut stored = vec![0; row_bytes as usize];
        let offset = self.piece.offset + u64::from(token) * row_bytes;
        let file = &self.file.parts()[self.piece.part].file;
        file.read_exact_at(&mut stored, offset).map_err(|cause| RowError::Read { token, cause })?;
        dequantise_block_bytes(self.table.format, &stored, row);
        Ok(())
    }
}
