//! Rows of the embedding table, read from the file on demand.
//!
//! The table is the largest tensor of a small model, and a token needs one row of it. So it is not mapped: one
//! positioned read through the page cache reads a row, which counts in no process's resident set.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::file::ModelFile;
use crate::checkpoint::{Piece, Repacked, Source, TensorInfo};
use crate::kernels::dequantise_block_bytes;
use crate::repack::RepackError;

/// The embedding table of a model file.
#[derive(Debug, Clone)]
pub struct EmbeddingRows {
    file: ModelFile,
    table: TensorInfo,
    place: TablePlace,
}

/// The places of a table's rows.
#[derive(Debug, Clone)]
enum TablePlace {
    /// One after the other.
    Piece(Piece),
    /// In another order, of which each row is copied by itself.
    Repacked(Repacked),
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
    /// The row has a number that no weight can have.
    #[error("the embedding of token {token} is damaged: {cause}")]
    Value {
        /// The token.
        token: u32,
        /// The number found.
        cause: RepackError,
    },
}

// === impl EmbeddingRows ===

impl EmbeddingRows {
    /// The rows of `table`. `None` for a table that does not lie in one piece of a file, or whose rows' values are no
    /// neighbours.
    pub(super) fn new(file: ModelFile, table: TensorInfo) -> Option<Self> {
        let place = match &table.source {
            Source::Files(pieces) => match **pieces {
                [piece] => TablePlace::Piece(piece),
                _ => return None,
            },
            Source::Repacked(pieces) => match &**pieces {
                [piece] if piece.repacking.of_row(0).is_some() => TablePlace::Repacked(piece.clone()),
                _ => return None,
            },
            Source::Computed(_) => return None,
        };
        Some(Self { file, table, place })
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
    /// [`RowError`] when there is no such token, `row` has the wrong length, reading the file fails, or the row has a
    /// number that no weight can have.
    pub fn read(&self, token: u32, row: &mut [f32]) -> Result<(), RowError> {
        let (rows, cols) = (self.table.rows(), self.table.cols());
        if u64::from(token) >= rows {
            return Err(RowError::Token { token, rows });
        }
        if row.len() as u64 != cols {
            return Err(RowError::Width { expected: cols, found: row.len() });
        }
        let row_bytes = self.table.bytes / rows;
        let stored = match &self.place {
            TablePlace::Piece(piece) => {
                self.bytes(token, piece, u64::from(token) * row_bytes..(u64::from(token) + 1) * row_bytes)?
            }
            TablePlace::Repacked(piece) => self.repacked(token, piece, row_bytes)?,
        };
        dequantise_block_bytes(self.table.format, &stored, row);
        Ok(())
    }

    /// The blocks of a row that lies in another order.
    fn repacked(&self, token: u32, piece: &Repacked, row_bytes: u64) -> Result<Vec<u8>, RowError> {
        let (one, places) = piece.repacking.of_row(token.into()).expect("`new` has checked the order");
        let pairs = piece.pieces.iter().zip(places);
        let tensors = pairs.map(|(piece, place)| self.bytes(token, piece, place)).collect::<Result<Vec<_>, _>>()?;
        let tensors: Vec<&[u8]> = tensors.iter().map(Vec::as_slice).collect();
        let mut row = vec![0; row_bytes as usize];
        one.write(&tensors, 0..1, &mut row).map_err(|cause| RowError::Value { token, cause })?;
        Ok(row)
    }

    /// The bytes `place` of a piece.
    fn bytes(&self, token: u32, piece: &Piece, place: Range<u64>) -> Result<Vec<u8>, RowError> {
        let mut bytes = vec![0; (place.end - place.start) as usize];
        let file = &self.file.parts()[piece.part].file;
        file.read_exact_at(&mut bytes, piece.offset + place.start).map_err(|cause| RowError::Read { token, cause })?;
        Ok(bytes)
    }
}
