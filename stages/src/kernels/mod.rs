//! Kernels over quantised rows, as a GGUF file stores them.

mod format;
mod matrix;

pub use format::Format;
pub use matrix::Matrix;
