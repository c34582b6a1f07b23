//! One tensor over mapped bytes.

use std::ops::Range;
use std::sync::Arc;

use super::mapping::Mapping;
use super::tensor_error::TensorError;
use crate::format::Format;
use crate::gguf::TensorInfo;
use crate::kernels::{Matrix, MatrixError, dequantise_block_bytes};

/// A mapped tensor. Cheap to clone. The pages stay mapped until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Tensor {
    mapping: Arc<Mapping>,
    info: Arc<TensorInfo>,
}

// === impl Tensor ===

impl Tensor {
    /// The tensor `info` inside `mapping`, which must hold all of it.
    pub(super) fn new(mapping: Arc<Mapping>, info: TensorInfo) -> Option<Self> {
        mapping.at(info.offset..info.end())?;
        Some(Self { mapping, info: Arc::new(info) })
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

    /// The stored bytes, in place.
    pub fn bytes(&self) -> &[u8] {
        // `new` has checked the range, and a mapping does not change.
        self.mapping.at(self.info.offset..self.info.end()).unwrap_or_default()
    }

    /// The stored rows as a matrix, in place. A tensor of more than two dimensions is one matrix of all its rows.
    pub fn matrix(&self) -> Matrix<'_> {
        self.view(self.rows(), self.bytes()).expect(SIZE_CHECKED)
    }

    /// The matrix `index` of a three-dimensional tensor, such as one expert's weights. `None` past the last.
    pub fn matrix_at(&self, index: usize) -> Option<Matrix<'_>> {
        let rows = self.info.dims.get(1).copied().unwrap_or(1) as usize;
        let bytes = self.bytes().chunks_exact(self.bytes().len() / self.rows() * rows).nth(index)?;
        Some(self.view(rows, bytes).expect(SIZE_CHECKED))
    }

    /// Rows `rows` of a matrix, as a tensor of their own over the same bytes.
    ///
    /// # Errors
    /// [`TensorError::Rows`] if it has no such rows.
    pub fn rows_of(&self, rows: Range<usize>) -> Result<Self, TensorError> {
        let found = self.rows();
        if rows.start > rows.end || rows.end > found {
            return Err(TensorError::Rows { name: self.name().to_owned(), expected: rows.end, found });
        }
        let row_bytes = self.info.bytes / found as u64;
        let mut info = TensorInfo::clone(&self.info);
        info.dims = vec![self.info.cols(), rows.len() as u64];
        info.offset += row_bytes * rows.start as u64;
        info.bytes = row_bytes * rows.len() as u64;
        Ok(Self { mapping: Arc::clone(&self.mapping), info: Arc::new(info) })
    }

    /// Rows `rows` as a matrix, in place. `None` past the last.
    pub fn matrix_of_rows(&self, rows: Range<usize>) -> Option<Matrix<'_>> {
        let row_bytes = self.bytes().len() / self.rows();
        let bytes = self.bytes().get(rows.start * row_bytes..rows.end * row_bytes)?;
        Some(self.view(rows.len(), bytes).expect(SIZE_CHECKED))
    }

    /// Copies all values as floats. Used for norms and biases, which are tiny.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] for a tensor that is too large for a norm or a bias. Matrices are never expanded.
    pub fn f32s(&self) -> Result<Vec<f32>, TensorError> {
        let count = self.info.rows() * self.info.cols();
        if count > EXPANDED_VALUES_MAX {
            return Err(TensorError::TooLarge {
                name: self.name().to_owned(),
                most: EXPANDED_VALUES_MAX,
                found: count,
            });
        }
        let mut values = vec![0.0; count as usize];
        dequantise_block_bytes(self.format(), self.bytes(), &mut values);
        Ok(values)
    }

    fn view<'a>(&self, rows: usize, bytes: &'a [u8]) -> Result<Matrix<'a>, MatrixError> {
        Matrix::new(self.format(), rows, self.cols(), bytes)
    }
}

/// Maximum number of values that are expanded to floats, which take 1 MiB. Norms and biases have as many values as a
/// row, at most about 60,000, and the biases of all experts of a layer have a few times as many.
const EXPANDED_VALUES_MAX: u64 = 1 << 18;

/// The reason why creating a matrix from a checked tensor cannot fail.
const SIZE_CHECKED: &str = "the header's check has measured the bytes by the same format and dimensions";
