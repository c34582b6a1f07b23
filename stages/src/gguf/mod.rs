//! The GGUF file format, versions 2 and 3, little endian: a checked reader over bytes, and a writer.
//!
//! Layout, from the format's public specification (ggml, `docs/gguf.md`): magic, version, tensor count, metadata count,
//! the metadata entries, one description per tensor, padding to the alignment, the tensors' bytes. Every count, length,
//! offset and type is checked against the size of the file before it is used. So a hostile file causes an error: no
//! panic, no loop longer than the file, no allocation out of proportion to the file's size.
//!
//! The reader takes bytes: it opens no files and makes no mappings. This module does not interpret the tensors or the
//! keys of a model.

mod cursor;
mod error;
mod extent;
mod header;
mod limits;
mod metadata;
mod tensor;
mod value;
mod write;

pub use error::{GgufError, MetadataError};
pub use extent::Extent;
pub use header::{GgufHeader, Keep};
pub use limits::{ALIGNMENT_DEFAULT, ALIGNMENT_MAX, ALIGNMENT_MIN};
pub use metadata::Metadata;
pub use tensor::TensorInfo;
pub use value::{Numbers, Strings, Value, ValueKind};
pub use write::{GgufWriter, TensorSource, TensorStream, WriteError};
