//! The description of a tensor: its name, shape and format, and the places of its bytes.

use std::ops::Range;
use std::sync::Arc;

use crate::format::Format;
use crate::gguf;
use crate::repack::Repacking;

/// A tensor of a checkpoint. All of its bytes lie inside the checkpoint's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, such as `blk.3.attn_q.weight`.
    pub name: String,
    /// Its dimensions in ggml's order: the first is the length of a row. There are 1 to 4, none zero.
    pub dims: Vec<u64>,
    /// Storage format of its values.
    pub format: Format,
    /// Its length in bytes.
    pub bytes: u64,
    /// The places of its bytes.
    pub source: Source,
    /// True if the values are stored without the one that they add to, as Gemma's norms are. Only tensors that are
    /// expanded to floats may be.
    pub minus_one: bool,
}

/// The places of a tensor's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In files: one piece, or pieces of equal length, of whole rows, one after the other.
    Files(Vec<Piece>),
    /// Computed from the metadata, such as factors of frequencies.
    Computed(Arc<[u8]>),
    /// In files in another order: copied when a shard is loaded.
    Repacked(Arc<[Repacked]>),
}

/// Whole rows of a tensor that lie in files in an order that no kernel reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repacked {
    /// The order, and the rows that are taken.
    pub(crate) repacking: Repacking,
    /// The bytes of the encoding's tensors, in its order.
    pub(crate) pieces: Vec<Piece>,
}

/// A range of bytes in one of a checkpoint's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Index of the file.
    pub part: usize,
    /// Offset of the first byte from the file's start.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

// === impl TensorInfo ===

impl TensorInfo {
    /// The tensor of a GGUF file, which is number `part` of its set.
    pub(super) fn of_gguf(tensor: gguf::TensorInfo, part: usize) -> Self {
        let gguf::TensorInfo { name, dims, format, offset, bytes } = tensor;
        let source = Source::Files(vec![Piece { part, offset, bytes }]);
        Self { name, dims, format, bytes, source, minus_one: false }
    }

    /// Values in a row.
    pub fn cols(&self) -> u64 {
        self.dims.first().copied().unwrap_or(1)
    }

    /// Rows: the product of all dimensions but the first.
    pub fn rows(&self) -> u64 {
        self.dims.iter().skip(1).product()
    }

    /// The same matrix without its first `rows` rows. `None` if it has no more, or does not lie in one piece of a file.
    pub(super) fn without_rows(mut self, rows: u64) -> Option<Self> {
        let [_, all] = self.dims[..] else { return None };
        let Source::Files(pieces) = &mut self.source else { return None };
        let [piece] = &mut pieces[..] else { return None };
        let left = all.checked_sub(rows).filter(|left| *left > 0)?;
        let skipped = self.bytes / all * rows;
        (piece.offset, piece.bytes) = (piece.offset + skipped, piece.bytes - skipped);
        (self.dims[1], self.bytes) = (left, self.bytes - skipped);
        Some(self)
    }

    /// True if it is copied when a shard is loaded.
    pub fn is_repacked(&self) -> bool {
        matches!(self.source, Source::Repacked(_))
    }

    /// The pieces of files that hold it as it is used. None for a tensor that is computed or copied.
    pub fn pieces(&self) -> &[Piece] {
        match &self.source {
            Source::Files(pieces) => pieces,
            Source::Computed(_) | Source::Repacked(_) => &[],
        }
    }
}

// === impl Piece ===

impl Piece {
    /// The bytes of the file.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes
    }
}
