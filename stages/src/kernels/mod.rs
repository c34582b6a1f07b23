//! Matrix products of quantised weights with activations. The weights are read in place from a mapped file.
//!
//! Invariant: an output is the same to the last bit for any number of rows in the batch, any number of threads and any
//! instruction set. `scalar` defines the order of operations. The other kernels keep it and are only faster. Unsafe
//! code is in the files of the instruction sets, in `thread_pool` (a job lent to threads), in `split` (one buffer, many
//! writers) and in the callers that take parts of a `Split`.

mod block;
mod codebook;
mod codec;
mod dispatch;
mod floats;
mod fp8;
mod grid;
mod isa;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod product;
mod rows;
mod scalar;
mod simd;
mod split;
#[cfg(test)]
mod tests;
mod thread_pool;
mod tile;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use dispatch::{GroupJob, MatmulJob, matmul, matmul_groups, matmul_on};
pub(crate) use floats::Floats;
pub(crate) use isa::InstructionSet;
pub use isa::Isa;
pub use matrix::{Matrix, MatrixError};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub use rows::Rows;
pub(crate) use split::Split;
pub use thread_pool::ThreadPool;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{avx2::Avx2, avx512::Avx512};

use crate::format::Format;

/// Writes the values of one row of `matrix` to `out`.
///
/// # Panics
/// If there is no such row, or `out` is not as long as a row.
pub fn dequantise_row(matrix: &Matrix<'_>, row: usize, out: &mut [f32]) {
    block::dequantise(matrix.format(), matrix.row(row), out);
}

/// Writes the values of whole blocks to `out`.
///
/// # Panics
/// If `bytes` are not exactly the blocks of `out.len()` values.
pub fn dequantise_block_bytes(format: Format, bytes: &[u8], out: &mut [f32]) {
    block::dequantise(format, bytes, out);
}
