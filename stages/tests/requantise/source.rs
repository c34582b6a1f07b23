//! The default model's weights as floats, from its file's bytes. Does not depend on their use.

use std::io;
use std::path::Path;

use stages::gguf::{GgufHeader, Metadata, TensorInfo};
use stages::kernels::dequantise_block_bytes;

/// A model file in memory.
pub struct Source {
    bytes: Vec<u8>,
    header: GgufHeader,
}

// === impl Source ===

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// If the file cannot be read or is not a GGUF file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let header = GgufHeader::parse(&bytes).map_err(io::Error::other)?;
        Ok(Self { bytes, header })
    }

    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// Writes the values of a row to the front of `out`. Writes nothing for an index past the last row of the file's
    /// matrix.
    pub fn row(&self, tensor: &TensorInfo, index: u64, out: &mut [f32]) {
        if index >= tensor.rows() {
            return;
        }
        let row_bytes = (tensor.bytes / tensor.rows()) as usize;
        let start = tensor.offset as usize + index as usize * row_bytes;
        let stored = &self.bytes[start..start + row_bytes];
        dequantise_block_bytes(tensor.format, stored, &mut out[..tensor.cols() as usize]);
    }
}
