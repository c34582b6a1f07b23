//! A model file on disk and the part of it that one stage maps.
//!
//! [`ModelFile`] has read and checked the header and keeps nothing mapped. [`ModelFile::map`] maps the pages of one
//! layer range: a [`Shard`], which hands out [`Tensor`]s over the mapped bytes. The embedding table is not mapped for
//! looking tokens up: [`EmbeddingRows`] reads single rows from the file, so a stage's resident file bytes are those of
//! its own tensors.
//!
//! This module knows the naming scheme of GGUF language models (`blk.<layer>.`, `token_embd`, `output`) and no
//! architecture.

mod embedding;
mod file;
mod fingerprint;
mod guard;
mod mapping;
mod place;
mod plan;
mod record;
mod resident;
mod shard;
mod tensor;

pub use embedding::{EmbeddingRows, RowError};
pub use file::{FileChanged, ModelFile, OpenError};
pub use guard::{EXIT_CODE_WEIGHTS_LOST, guard_against_truncation};
pub use place::Place;
pub use record::ModelError;
pub use resident::Residency;
pub use shard::{MapError, Shard, TensorError};
pub use tensor::Tensor;
