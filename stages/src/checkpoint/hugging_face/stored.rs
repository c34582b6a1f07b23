//! A matrix or vector as a folder holds it: one tensor of floats, or the tensors of an encoding together.

use std::path::PathBuf;

use super::files::WeightFile;
use crate::checkpoint::{OpenError, Piece, Repacked, Source, TensorInfo};
use crate::format::Format;
use crate::repack::{Encoding, Repacking};
use crate::safetensors::StoredTensor;

/// Highest number of an expert, eight times that of the largest known model.
pub(super) const EXPERTS_MAX: usize = 4096;

/// A stored tensor, with the number of its file.
#[derive(Clone, Copy)]
pub(super) struct StoredPart<'a> {
    pub(super) number: usize,
    pub(super) file: &'a WeightFile,
    pub(super) tensor: &'a StoredTensor,
}

/// A tensor of the model.
#[derive(Clone)]
pub(super) struct Stored<'a> {
    /// Its name, which for several tensors is that of none.
    pub(super) name: String,
    /// The tensor that holds its values.
    pub(super) main: StoredPart<'a>,
    pub(super) form: Form,
}

/// The form of a tensor's values.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// Floats, in this shape.
    Floats(Format, Vec<u64>),
    /// A matrix for each expert, or one.
    Coded(Coded),
}

/// Matrices in an order that no kernel reads.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Coded {
    pub(super) encoding: Encoding,
    /// Number of matrices, if there is a dimension for it.
    pub(super) experts: Option<u64>,
    pub(super) rows: u64,
    pub(super) cols: u64,
    /// The tensors of the encoding, whole.
    pub(super) pieces: Vec<Piece>,
}

/// Rows of a matrix: those from `first` on, every `step`th.
#[derive(Debug, Clone, Copy)]
struct RowChoice {
    first: u64,
    step: u64,
    rows: u64,
}

// === impl StoredPart ===

impl StoredPart<'_> {
    pub(super) fn wrong(&self, expected: impl Into<String>, found: impl Into<String>) -> OpenError {
        let path: PathBuf = self.file.part.path.clone();
        let field = format!("tensor {:?}", self.tensor.name);
        OpenError::Folder { path, field, expected: expected.into(), found: found.into() }
    }

    pub(super) fn piece(&self) -> Piece {
        let range = &self.tensor.range;
        Piece { part: self.number, offset: range.start, bytes: range.end - range.start }
    }

    /// The tensor as floats.
    ///
    /// # Errors
    /// If it has other values, or more dimensions than a tensor of a model.
    pub(super) fn floats(&self) -> Result<Form, OpenError> {
        let Some(format) = self.tensor.dtype.format() else {
            return Err(self.wrong("F32, F16 or BF16", self.tensor.dtype.name()));
        };
        if !(1..=4).contains(&self.tensor.shape.len()) {
            return Err(self.wrong("1 to 4 dimensions", format!("{:?}", self.tensor.shape)));
        }
        Ok(Form::Floats(format, self.tensor.shape.clone()))
    }
}

// === impl Stored ===

impl Stored<'_> {
    pub(super) fn wrong(&self, expected: impl Into<String>, found: impl Into<String>) -> OpenError {
        self.main.wrong(expected, found)
    }

    /// Its shape, for messages.
    pub(super) fn shown(&self) -> String {
        match &self.form {
            Form::Floats(..) => format!("{} {:?}", self.main.tensor.dtype.name(), self.main.tensor.shape),
            Form::Coded(coded) => format!("{} rows of {} values in {:?}", coded.rows, coded.cols, coded.encoding),
        }
    }

    /// True if `other` has the same form in other places.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (&self.form, &other.form) {
            (Form::Coded(own), Form::Coded(other)) => own.without_places() == other.without_places(),
            (own, other) => own == other,
        }
    }

    /// The tensor `name`, which it is. Dimensions of one are left out if it is `squeezed`.
    pub(super) fn whole(&self, name: String, squeezed: bool, minus_one: bool) -> Result<TensorInfo, OpenError> {
        let (format, mut dims, bytes, source) = match &self.form {
            Form::Floats(format, shape) => {
                let piece = self.main.piece();
                let dims: Vec<u64> = shape.iter().rev().copied().collect();
                (*format, dims, piece.bytes, Source::Files(vec![piece]))
            }
            Form::Coded(coded) => {
                let all = RowChoice { first: 0, step: 1, rows: coded.rows };
                let (bytes, source) = self.copied(coded, all)?;
                let dims = [coded.cols, coded.rows].into_iter().chain(coded.experts).collect();
                (coded.encoding.format(), dims, bytes, source)
            }
        };
        if squeezed {
            dims.retain(|dim: &u64| *dim > 1);
            // A single value is a vector of one.
            if dims.is_empty() {
                dims.push(1);
            }
        }
        Ok(TensorInfo { name, dims, format, bytes, source, minus_one })
    }

    /// The tensor `name`, which is half number `half` of the rows, or of each expert's rows. The halves lie one after
    /// the other, or in turns.
    pub(super) fn half(&self, name: String, half: u64, in_turns: bool) -> Result<TensorInfo, OpenError> {
        let (rows, experts) = match &self.form {
            Form::Floats(_, shape) => match **shape {
                [rows, _] => (rows, 1),
                [experts, rows, _] => (rows, experts),
                _ => return Err(self.wrong("two or three dimensions", format!("{shape:?}"))),
            },
            Form::Coded(coded) => (coded.rows, coded.experts.unwrap_or(1)),
        };
        if !rows.is_multiple_of(2) || experts as usize > EXPERTS_MAX {
            let expected = format!("an even number of rows of at most {EXPERTS_MAX} experts");
            return Err(self.wrong(expected, self.shown()));
        }
        let rows = rows / 2;
        let (format, mut dims, bytes, source) = match &self.form {
            Form::Floats(format, shape) => {
                let whole = self.main.piece();
                let bytes = whole.bytes / experts / 2;
                let piece =
                    |expert: u64| Piece { part: whole.part, offset: whole.offset + (2 * expert + half) * bytes, bytes };
                let pieces = Source::Files((0..experts).map(piece).collect());
                let mut dims: Vec<u64> = shape.iter().rev().copied().collect();
                dims[1] = rows;
                (*format, dims, bytes * experts, pieces)
            }
            Form::Coded(coded) => {
                let choice = match in_turns {
                    true => RowChoice { first: half, step: 2, rows },
                    false => RowChoice { first: half * rows, step: 1, rows },
                };
                let (bytes, source) = self.copied(coded, choice)?;
                let dims = [coded.cols, rows].into_iter().chain(coded.experts).collect();
                (coded.encoding.format(), dims, bytes, source)
            }
        };
        // Rows of one value are the values of vectors.
        if in_turns && dims.first() == Some(&1) {
            dims.remove(0);
        }
        Ok(TensorInfo { name, dims, format, bytes, source, minus_one: false })
    }

    /// The matrices of experts, one tensor each, as the tensor `name`.
    pub(super) fn joined(experts: &[&Self], name: String) -> Result<TensorInfo, OpenError> {
        let Some(first) = experts.first() else { unreachable!("an expert was there") };
        let count = experts.len() as u64;
        let (format, cols, rows, bytes, source) = match &first.form {
            Form::Floats(format, shape) => {
                let [rows, cols] = **shape else {
                    return Err(first.wrong("two dimensions", format!("{shape:?}")));
                };
                let pieces: Vec<Piece> = experts.iter().map(|expert| expert.main.piece()).collect();
                let bytes = pieces.iter().map(|piece| piece.bytes).sum();
                (*format, cols, rows, bytes, Source::Files(pieces))
            }
            Form::Coded(coded) => {
                let all = RowChoice { first: 0, step: 1, rows: coded.rows };
                let (mut bytes, mut pieces) = (0, Vec::new());
                for expert in experts {
                    let Form::Coded(coded) = &expert.form else { unreachable!("all have the same form") };
                    let (own_bytes, Source::Repacked(own)) = expert.copied(coded, all)? else { unreachable!("copied") };
                    bytes += own_bytes;
                    pieces.extend(own.iter().cloned());
                }
                (coded.encoding.format(), coded.cols, coded.rows, bytes, Source::Repacked(pieces.into()))
            }
        };
        Ok(TensorInfo { name, dims: vec![cols, rows, count], format, bytes, source, minus_one: false })
    }

    /// The bytes of the rows `choice` of each matrix, and how they are copied.
    fn copied(&self, coded: &Coded, choice: RowChoice) -> Result<(u64, Source), OpenError> {
        let RowChoice { first, step, rows } = choice;
        let Coded { encoding, rows: stored_rows, cols, .. } = *coded;
        let repacking = Repacking { encoding, cols, stored_rows, first, step, rows };
        let Some(row_bytes) = repacking.row_bytes() else {
            let values = repacking.format().block_values();
            return Err(self.wrong(format!("rows of a multiple of {values} values"), cols.to_string()));
        };
        let experts = coded.experts.unwrap_or(1);
        let Some(bytes) = row_bytes.checked_mul(rows).and_then(|bytes| bytes.checked_mul(experts)) else {
            return Err(self.wrong("a size below 2^64 bytes", self.shown()));
        };
        let piece = |expert: u64| {
            let of_expert = |piece: &Piece| {
                let bytes = piece.bytes / experts;
                Piece { part: piece.part, offset: piece.offset + expert * bytes, bytes }
            };
            Repacked { repacking, pieces: coded.pieces.iter().map(of_expert).collect() }
        };
        Ok((bytes, Source::Repacked((0..experts).map(piece).collect())))
    }
}

// === impl Coded ===

impl Coded {
    fn without_places(&self) -> Self {
        Self { pieces: Vec::new(), ..self.clone() }
    }
}
