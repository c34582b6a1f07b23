//! The safetensors file format: a checked reader over bytes.
//!
//! Layout, from the format's public specification: the header's length (8 bytes, little endian), the header (a JSON
//! object that gives each tensor's type, shape and range), the tensors' bytes. Every length, shape and range is checked
//! against the size of the file before it is used, so a hostile file causes an error.
//!
//! The reader takes bytes: it opens no files and makes no mappings. It does not interpret the tensors.

mod dtype;
mod error;
mod header;
mod index;
mod limits;

pub use dtype::Dtype;
pub use error::SafetensorsError;
pub use header::{SafetensorsHeader, StoredTensor};
pub use index::SafetensorsIndex;
