//! The cluster's record of a model file: its sizes, and the scratch memory that its computation takes.

use std::num::NonZeroUsize;

use schema::record::{KV_BLOCK_TOKENS, KvBlocks, KvGrowth, KvRoom, ModelRecord};

#[cfg(feature = "accelerator")]
use crate::accelerator;
use crate::layer_figures::LayerFigures;
use crate::loader::scratch_bytes;
use crate::model::{self, ModelSpec};
use crate::weights::{self, ModelFile};

/// Whole contexts of the model for which the room for keys and values grows, if it follows the stages' memory: more
/// sequences than a household's agents keep at their ends at a time. The rest of the memory is left to other models.
const ROOM_CONTEXTS_MAX: u32 = 4;
/// Tokens to which that room grows, at most. Block tables of a full micro-batch then take less than half of a frame's
/// header, however much of their prefixes its sequences share.
const ROOM_TOKENS_MAX: u32 = 1 << 18;

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

/// The record of `file` for a cluster whose room for keys and values follows the stages' memory: `room` is the least,
/// which layers are placed by.
///
/// # Errors
/// As [`model_record`].
pub fn growing_record(file: &ModelFile, room: KvRoom, stages_min: u32) -> Result<ModelRecord, RecordError> {
    let record = model_record(file, room, stages_min)?;
    let spec = ModelSpec::read(file.header())?;
    let tokens_max = room_tokens_max(&record);
    let factors = |tokens: u32| {
        let longest = spec.sequence_tokens_max(tokens);
        spec.ropes.iter().map(|rope| rope.factor_tensor(longest)).collect::<Vec<_>>()
    };
    // The longest sequence chooses between two rotations of some models: a room that grew would change every answer.
    if tokens_max <= record.kv_tokens || factors(tokens_max) != factors(record.kv_tokens) {
        return Ok(record);
    }
    let largest = model_record(file, KvRoom { tokens: tokens_max, ..room }, stages_min)?;
    let growth = KvGrowth { tokens_max, scratch_bytes: largest.scratch_bytes };
    Ok(ModelRecord { kv_growth: Some(growth), ..record })
}

/// The most tokens to which the room for keys and values of a model grows: those of [`ROOM_CONTEXTS_MAX`] sequences as
/// long as its context, or as its window if all layers have one.
fn room_tokens_max(model: &ModelRecord) -> u32 {
    let KvBlocks { full, window } = model.kv_kinds().blocks_needed(model.context_tokens_max());
    let blocks = full.max(window).saturating_mul(ROOM_CONTEXTS_MAX);
    blocks.saturating_mul(KV_BLOCK_TOKENS).min(ROOM_TOKENS_MAX)
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
