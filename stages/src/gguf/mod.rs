//! The GGUF file format, versions 2 and 3, little endian: a checked reader over bytes, and a writer.
//!
//! Layout, from the format's public specification (ggml, `docs/gguf.md`): magic, version, tensor count, metadata count,
//! the metadata entries, one description per tensor, padding to the alignment, the tensors' bytes. Every count, length,
//! offset and type is checked against what the file can hold before it is used, so a hostile file costs an error: no
//! panic, no loop longer than the file, no allocation that the file's size does not justify.
//!
//! This module knows neither files nor mappings (it is handed bytes) nor what any tensor or key means.

mod cursor;
mod error;
mod header;
mod limits;
mod metadata;
mod tensor;
mod value;
mod write;

pub use error::{GgufError, MetadataError};
pub use header::{Header, Keep};
pub use limits::{ALIGNMENT_DEFAULT, ALIGNMENT_MAX, ALIGNMENT_MIN};
pub use metadata::Metadata;
pub use tensor::TensorInfo;
pub use value::{Kind, Numbers, Strings, Value};
pub use write::{GgufWriter, Source, Stream, WriteError};
