//! What a cluster is told of a model file: its sizes, and the scratch that computing it takes.

use std::num::NonZeroUsize;

use schema::record::ModelRecord;

use crate::loader::scratch_bytes;
use crate::model::{self, Hyper};
use crate::weights::{self, ModelFile};

/// Threads that scratch is counted for: stages of more threads refuse what does not fit them after all.
const THREADS_EXPECTED: usize = 16;

/// Why a model file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its metadata or tensors are not those of a language model.
    #[error(transparent)]
    Weights(#[from] weights::ModelError),
    /// Its architecture is not supported.
    #[error(transparent)]
    Model(#[from] model::ModelError),
}

/// The record of `file` for a cluster that keeps `kv_tokens` tokens of keys and values and waits for `stages_min` stages.
///
/// # Errors
/// [`RecordError`] says what is not supported and what is.
pub fn model_record(file: &ModelFile, kv_tokens: u32, stages_min: u32) -> Result<ModelRecord, RecordError> {
    let hyper = Hyper::read(file.header())?;
    hyper.check_tensors(file.header())?;
    let threads = std::thread::available_parallelism().map_or(THREADS_EXPECTED, NonZeroUsize::get);
    let scratch_bytes = scratch_bytes(&hyper, threads, kv_tokens);
    Ok(ModelRecord { scratch_bytes, ..file.record(kv_tokens, stages_min)? })
}
