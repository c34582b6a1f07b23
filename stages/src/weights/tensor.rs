//! One tensor over mapped bytes.

use std::sync::Arc;

use super::decode;
use super::mapping::Mapping;
use super::shard::TensorError;
use crate::gguf::TensorInfo;
use crate::kernels::{Format, Matrix};

/// A mapped tensor. Cheap to clone; the pages stay mapped as long as one of them lives.
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

    /// How its values are stored.
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
        // Checked when the tensor was made; a mapping does not change.
        self.mapping.at(self.info.offset..self.info.end()).unwrap_or_default()
    }

    /// The stored rows as a matrix, in place. A tensor of more than two dimensions is one matrix of all its rows.
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.format(), self.rows(), self.cols(), self.bytes())
    }

    /// The matrix `index` of a three-dimensional tensor, such as one expert's weights; `None` past the last.
    pub fn matrix_at(&self, index: usize) -> Option<Matrix<'_>> {
        let rows = self.info.dims.get(1).copied().unwrap_or(1) as usize;
        let row_bytes = self.bytes().len() / self.rows();
        let start = index.checked_mul(rows)?.checked_mul(row_bytes)?;
        let bytes = self.bytes().get(start..start.checked_add(rows * row_bytes)?)?;
        Some(Matrix::new(self.format(), rows, self.cols(), bytes))
    }

    /// All values as floats, copied: for norms and biases, which are tiny.
    ///
    /// # Errors
    /// [`TensorError::Decode`] when the values cannot be decoded.
    pub fn f32s(&self) -> Result<Vec<f32>, TensorError> {
        let mut values = vec![0.0; self.rows() * self.cols()];
        decode::decode(self.format(), self.bytes(), &mut values)
            .map_err(|cause| TensorError::Decode { name: self.name().to_owned(), cause })?;
        Ok(values)
    }
}
