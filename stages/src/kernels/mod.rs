//! Stand-in until the kernels land.
#![allow(dead_code)]

mod block;
mod format;
mod matrix;

pub use format::{Format, UnsupportedFormat};
pub use matrix::{Matrix, MatrixError};

/// Writes the values of whole blocks to `out`.
///
/// # Panics
/// When `bytes` are not exactly the blocks of `out.len()` values.
pub fn dequantise_block_bytes(format: Format, bytes: &[u8], out: &mut [f32]) {
    block::dequantise(format, bytes, out);
}
