//! The parts that a shard's runner is made of on any device, and the reasons why it cannot be made.

use schema::record::KvRoom;

use crate::model::{ModelConfig, ModelError};
use crate::weights::{MapError, Shard, TensorError};

/// The model's part of a runner; the device's is given beside it.
#[derive(Debug)]
pub struct RunnerSetup {
    /// The model's sizes.
    pub config: ModelConfig,
    /// The mapped weights; their tensors were checked against the sizes.
    pub shard: Shard,
    /// Keys and values to have room for.
    pub room: KvRoom,
}

/// A shard's runner that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A layer cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The shard lacks a tensor.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The model is not as it should be.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// There is no memory.
    #[error("cannot reserve keys and values of {tokens} tokens")]
    Memory {
        /// The number of tokens.
        tokens: u32,
        /// The system's reason.
        #[source]
        cause: std::io::Error,
    },
    /// The device failed, most likely for want of memory.
    #[error("the device failed while the shard was copied to it")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
}
