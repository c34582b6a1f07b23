//! One tensor over mapped bytes.

use std::ops::Range;
use std::sync::Arc;

use super::mapping::{self, Mapping};
use super::tensor_error::TensorError;
use crate::checkpoint::{Piece, Source, TensorInfo};
use crate::format::Format;
use crate::kernels::{Matrix, MatrixError, dequantise_block_bytes};

/// A mapped tensor. Cheap to clone. The pages stay mapped until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Tensor {
    info: Arc<TensorInfo>,
    /// Its bytes: one chunk, or chunks of equal length, of whole rows.
    chunks: Arc<[Chunk]>,
}

/// A run of a tensor's bytes.
#[derive(Debug, Clone)]
enum Chunk {
    /// A range of a file, which the mapping holds.
    Mapped(Arc<Mapping>, Range<u64>),
    /// A range of computed or copied bytes.
    Computed(Arc<[u8]>, Range<u64>),
}

// === impl Tensor ===

impl Tensor {
    /// The tensor `info`. `mapping_of` finds the mapping of a file's range, which must hold all of it.
    pub(super) fn new(
        info: TensorInfo,
        mapping_of: impl Fn(usize, Range<u64>) -> Option<Arc<Mapping>>,
    ) -> Option<Self> {
        let chunks = match &info.source {
            Source::Files(pieces) => {
                let chunk = |piece: &Piece| {
                    let mapping = mapping_of(piece.part, piece.range())?;
                    mapping.at(piece.range())?;
                    Some(Chunk::Mapped(mapping, piece.range()))
                };
                pieces.iter().map(chunk).collect::<Option<_>>()?
            }
            Source::Computed(bytes) => [Chunk::Computed(Arc::clone(bytes), 0..bytes.len() as u64)].into(),
            Source::Repacked(_) => return None,
        };
        Some(Self { info: Arc::new(info), chunks })
    }

    /// The tensor `info`, which is copied, over the bytes of its copy.
    pub(super) fn of_copy(info: TensorInfo, bytes: Arc<[u8]>) -> Self {
        let whole = 0..bytes.len() as u64;
        Self { info: Arc::new(info), chunks: [Chunk::Computed(bytes, whole)].into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Its dimensions in ggml's order: the row's length first.
    pub fn dims(&self) -> &[u64] {
        &self.info.dims
    }

    /// Storage format of its values.
    pub fn format(&self) -> Format {
        self.info.format
    }

    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.info.cols() as usize
    }

    /// Rows: the product of all dimensions but the first.
    pub fn rows(&self) -> usize {
        self.info.rows() as usize
    }

    /// The stored bytes, in place. Of a tensor in several pieces, those of the first: see [`Self::pieces`].
    pub fn bytes(&self) -> &[u8] {
        self.chunks.first().map_or(&[], Chunk::bytes)
    }

    /// The tensor, or one for each of the pieces that it lies in: a matrix of as many rows.
    pub fn pieces(&self) -> Vec<Self> {
        if self.chunks.len() == 1 {
            return vec![self.clone()];
        }
        let (cols, rows) = (self.info.cols(), (self.rows() / self.chunks.len().max(1)) as u64);
        let piece = |chunk: &Chunk| {
            let bytes = chunk.bytes().len() as u64;
            let info = TensorInfo { dims: vec![cols, rows], bytes, ..TensorInfo::clone(&self.info) };
            Self { info: Arc::new(info), chunks: [chunk.clone()].into() }
        };
        self.chunks.iter().map(piece).collect()
    }

    /// The stored rows as a matrix, in place. A tensor of more than two dimensions is one matrix of all its rows.
    ///
    /// # Panics
    /// For a tensor in several pieces, which only one of experts is: they are read by [`Self::matrix_at`].
    pub fn matrix(&self) -> Matrix<'_> {
        assert!(self.chunks.len() == 1, "{} lies in {} pieces", self.name(), self.chunks.len());
        self.view(self.rows(), self.bytes()).expect(SIZE_CHECKED)
    }

    /// The matrix `index` of a three-dimensional tensor, such as one expert's weights. `None` past the last.
    pub fn matrix_at(&self, index: usize) -> Option<Matrix<'_>> {
        let rows = self.info.dims.get(1).copied().unwrap_or(1) as usize;
        self.matrix_of_rows(index * rows..(index + 1) * rows)
    }

    /// Asks the system to read the pages of matrix `index` ahead, unless they are in memory.
    pub fn ask_ahead(&self, index: usize) {
        let rows = self.info.dims.get(1).copied().unwrap_or(1) as usize;
        let place = self.place_of(index * rows..(index + 1) * rows);
        if let Some(bytes) = place.and_then(|(chunk, range)| chunk.bytes().get(range)) {
            mapping::ask_ahead(bytes);
        }
    }

    /// Rows `rows` of a matrix, as a tensor of their own over the same bytes.
    ///
    /// # Errors
    /// [`TensorError::Rows`] if it has no such rows, or not all in one piece.
    pub fn rows_of(&self, rows: Range<usize>) -> Result<Self, TensorError> {
        let found = self.rows();
        let Some((chunk, range)) = self.place_of(rows.clone()) else {
            return Err(TensorError::Rows { name: self.name().to_owned(), expected: rows.end, found });
        };
        let (dims, bytes) = (vec![self.info.cols(), rows.len() as u64], (range.end - range.start) as u64);
        let info = TensorInfo { dims, bytes, ..TensorInfo::clone(&self.info) };
        Ok(Self { info: Arc::new(info), chunks: [chunk.part(range)].into() })
    }

    /// Rows `rows` as a matrix, in place. `None` past the last, and for rows that do not lie in one piece.
    pub fn matrix_of_rows(&self, rows: Range<usize>) -> Option<Matrix<'_>> {
        let (chunk, range) = self.place_of(rows.clone())?;
        Some(self.view(rows.len(), chunk.bytes().get(range)?).expect(SIZE_CHECKED))
    }

    /// Copies all values as floats. Used for norms and biases, which are tiny.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] for a tensor that is too large for a norm or a bias. Matrices are never expanded.
    /// [`TensorError::NotFinite`] for one with a value that is no finite number.
    pub fn f32s(&self) -> Result<Vec<f32>, TensorError> {
        let count = self.info.rows() * self.info.cols();
        if count > EXPANDED_VALUES_MAX || self.chunks.len() != 1 {
            return Err(TensorError::TooLarge {
                name: self.name().to_owned(),
                most: EXPANDED_VALUES_MAX,
                found: count,
            });
        }
        let mut values = vec![0.0; count as usize];
        dequantise_block_bytes(self.format(), self.bytes(), &mut values);
        if self.info.minus_one {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        self.check_values(0, &values)?;
        Ok(values)
    }

    /// The bytes of all pieces, each in place.
    pub(super) fn all_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(Chunk::bytes)
    }

    /// The chunk that holds rows `rows`, and their bytes in it.
    fn place_of(&self, rows: Range<usize>) -> Option<(&Chunk, Range<usize>)> {
        if rows.start > rows.end || rows.end > self.rows() {
            return None;
        }
        let rows_each = self.rows().checked_div(self.chunks.len())?;
        let index = (rows.start / rows_each).min(self.chunks.len() - 1);
        let (chunk, first) = (self.chunks.get(index)?, index * rows_each);
        let row_bytes = chunk.bytes().len() / rows_each;
        (rows.end <= first + rows_each)
            .then(|| (chunk, (rows.start - first) * row_bytes..(rows.end - first) * row_bytes))
    }

    /// Checks that all values are finite numbers, a row at a time: for biases of experts, which stay where they are.
    ///
    /// # Errors
    /// [`TensorError::NotFinite`] for the first that is not.
    pub fn check_finite(&self) -> Result<(), TensorError> {
        let cols = self.cols();
        let mut values = vec![0.0; cols];
        let rows_each = self.rows() / self.chunks.len().max(1);
        let rows = self.all_bytes().flat_map(|chunk| chunk.chunks_exact((chunk.len() / rows_each.max(1)).max(1)));
        for (row, bytes) in rows.enumerate() {
            dequantise_block_bytes(self.format(), bytes, &mut values);
            self.check_values(row * cols, &values)?;
        }
        Ok(())
    }

    /// Checks that `values`, of which the first is number `from` of the tensor's, are finite numbers.
    fn check_values(&self, from: usize, values: &[f32]) -> Result<(), TensorError> {
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => {
                Err(TensorError::NotFinite { name: self.name().to_owned(), index: from + index, found: values[index] })
            }
        }
    }

    fn view<'a>(&self, rows: usize, bytes: &'a [u8]) -> Result<Matrix<'a>, MatrixError> {
        Matrix::new(self.format(), rows, self.cols(), bytes)
    }
}

// === impl Chunk ===

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            // `Tensor::new` has checked the range, and a mapping does not change.
            Self::Mapped(mapping, range) => mapping.at(range.clone()).unwrap_or_default(),
            Self::Computed(bytes, range) => bytes.get(range.start as usize..range.end as usize).unwrap_or_default(),
        }
    }

    /// The bytes `part` of it.
    fn part(&self, part: Range<usize>) -> Self {
        let within = |range: &Range<u64>| range.start + part.start as u64..range.start + part.end as u64;
        match self {
            Self::Mapped(mapping, range) => Self::Mapped(Arc::clone(mapping), within(range)),
            Self::Computed(bytes, range) => Self::Computed(Arc::clone(bytes), within(range)),
        }
    }
}

/// Maximum number of values that are expanded to floats, which take 1 MiB. Norms and biases have as many values as a
/// row, at most about 60,000, and the biases of all experts of a layer have a few times as many.
const EXPANDED_VALUES_MAX: u64 = 1 << 18;

/// The reason why creating a matrix from a checked tensor cannot fail.
const SIZE_CHECKED: &str = "the header's check has measured the bytes by the same format and dimensions";
