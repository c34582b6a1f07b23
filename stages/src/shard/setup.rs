//! The parts that a shard's runner needs on any device, and the errors of creating it.

use schema::record::KvRoom;

use crate::model::{ModelSpec, UnsupportedModel};
use crate::weights::{MapError, MappedShard, TensorError};

/// The model's part of a runner. The device's part is a separate argument.
#[derive(Debug)]
pub struct RunnerSetup {
    /// The model's sizes.
    pub spec: ModelSpec,
    /// The mapped weights. Their tensors were checked against the sizes.
    pub shard: MappedShard,
    /// Capacity and number type of the KV cache.
    pub room: KvRoom,
}

/// Errors of creating a shard's runner.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A layer cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The shard lacks a tensor.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The model is not supported or not complete.
    #[error(transparent)]
    Model(#[from] UnsupportedModel),
    /// There is not enough memory for keys and values.
    #[error("cannot reserve keys and values of {tokens} tokens")]
    Memory {
        /// The number of tokens.
        tokens: u32,
        /// The system's reason.
        #[source]
        cause: std::io::Error,
    },
    /// The device failed, most likely for lack of memory.
    #[error("the device failed while the shard was copied to it")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
}
