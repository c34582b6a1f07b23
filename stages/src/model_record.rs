//! The cluster's record of a model file: its sizes, and the scratch memory that its computation takes.

use std::num::NonZeroUsize;

use schema::record::{KvRoom, ModelRecord};

#[cfg(feature = "accelerator")]
use crate::accelerator;
use crate::layer_figures::LayerFigures;
use crate::loader::scratch_bytes;
use crate::model::{self, ModelSpec};
use crate::weights::{self, ModelFile};

/// Number of threads that scratch is counted for, if the system does not report its parallelism. A stage with more
/// threads refuses a shard that does not fit its memory.
const THREADS_EXPECTED: usize = 16;

/// Errors of a model file that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Its metadata or tensors are not those of a language model.
    #[error(transparent)]
    Weights(#[from] weights::NotALanguageModel),
    /// Its architecture is not supported.
    #[error(transparent)]
    Model(#[from] model::UnsupportedModel),
}

/// The record of `file` for a cluster that reserves `room` for keys and values and waits for `stages_min` stages.
///
/// # Errors
/// [`RecordError`] when the model is not supported. The text lists the supported values.
pub fn model_record(file: &ModelFile, room: KvRoom, stages_min: u32) -> Result<ModelRecord, RecordError> {
    let spec = ModelSpec::read(file.header())?;
    spec.check_tensors(file.header())?;
    spec.check_kv(room.kv_type)?;
    let threads = std::thread::available_parallelism().map_or(THREADS_EXPECTED, NonZeroUsize::get);
    let scratch_bytes = scratch_bytes(&spec, threads, room.tokens).max(on_device(&spec, room.tokens));
    let record = ModelRecord { scratch_bytes, ..file.record(room, stages_min)? };
    Ok(LayerFigures::of(&spec, file.header(), room.kv_type).describe(record))
}

/// The planner counts the same scratch for every stage, so it must be that of the device that needs the most.
#[cfg(feature = "accelerator")]
fn on_device(spec: &ModelSpec, kv_tokens: u32) -> u64 {
    let computed = accelerator::DenseModel::of(spec).ok().filter(|_| accelerator::BUILT_IN);
    computed.map_or(0, |model| accelerator::scratch_bytes(&model, true, kv_tokens))
}

/// Without accelerators there is no other device to count.
#[cfg(not(feature = "accelerator"))]
fn on_device(_: &ModelSpec, _: u32) -> u64 {
    0
}
