//! What a cluster is told of a model file: its sizes, and the scratch that computing it takes.

use std::num::NonZeroUsize;

use schema::record::{KvRoom, ModelRecord};

#[cfg(feature = "accelerator")]
use crate::accelerator;
use crate::loader::scratch_bytes;
use crate::model::{self, ModelConfig};
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

/// The record of `file` for a cluster that keeps `room` of keys and values and waits for `stages_min` stages.
///
/// # Errors
/// [`RecordError`] says what is not supported and what is.
pub fn model_record(file: &ModelFile, room: KvRoom, stages_min: u32) -> Result<ModelRecord, RecordError> {
    let config = ModelConfig::read(file.header())?;
    config.check_tensors(file.header())?;
    config.check_kv(room.kv_type)?;
    let threads = std::thread::available_parallelism().map_or(THREADS_EXPECTED, NonZeroUsize::get);
    let scratch_bytes = scratch_bytes(&config, threads, room.tokens).max(on_device(&config, room.tokens));
    Ok(ModelRecord { scratch_bytes, ..file.record(room, stages_min)? })
}

/// A plan counts the same scratch for every stage, so it must be that of the device that needs the most.
#[cfg(feature = "accelerator")]
fn on_device(config: &ModelConfig, kv_tokens: u32) -> u64 {
    if accelerator::BUILT_IN { accelerator::scratch_bytes(config, true, kv_tokens) } else { 0 }
}

/// Without other devices there is no more to count.
#[cfg(not(feature = "accelerator"))]
fn on_device(_: &ModelConfig, _: u32) -> u64 {
    0
}
