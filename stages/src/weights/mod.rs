//! A model on disk and the part of it that one stage maps.
//!
//! [`ModelFile`] has checked headers and keeps nothing mapped. [`ModelFile::map`] maps the pages of one layer range: a
//! [`MappedShard`], which returns [`Tensor`]s over the mapped bytes. For token lookup the embedding table is not
//! mapped: [`EmbeddingRows`] reads single rows from the file, so a stage's resident file bytes are those of its own
//! tensors.
//!
//! This module depends on the naming scheme of GGUF language models (`blk.<layer>.`, `token_embd`, `output`) and on no
//! architecture.

mod copies;
mod embedding;
mod file;
mod guard;
mod mapping;
mod plan;
mod record;
mod resident;
mod shard;
mod tensor;
mod tensor_error;
mod tensor_role;

pub use crate::checkpoint::{FileChanged, FileStamp, OpenError};
pub use embedding::{EmbeddingRows, RowError};
pub use file::ModelFile;
pub use guard::{EXIT_CODE_WEIGHTS_LOST, guard_against_truncation};
pub use mapping::Mapping;
pub(crate) use mapping::major_faults;
#[cfg(all(feature = "metal", target_os = "macos"))]
pub(crate) use mapping::page_bytes;
pub use record::NotALanguageModel;
pub use resident::Residency;
pub use shard::{MapError, MappedShard};
pub use tensor::Tensor;
pub use tensor_error::TensorError;
pub use tensor_role::TensorRole;
