//! Proof that a stage holds a shard: the value of `claims/<generation>/<slot>`.

use serde::{Deserialize, Serialize};

use crate::{LayerRange, StageName};

/// The progress of a stage with its shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum ClaimState {
    /// The stage maps the weights.
    Loading,
    /// The weights are read into memory. The stage still serves its shard of the previous generation. It loads this one
    /// once every claim of the new generation is ready.
    Ready,
    /// The shard takes frames.
    Serving,
    /// The stage could not load the shard. No stage serves these layers.
    Failed {
        /// The reason, for the operator.
        reason: String,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// A stage's hold on one shard of one generation, under its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// The stage that holds the shard.
    pub stage: StageName,
    /// The layers of the shard.
    pub layers: LayerRange,
    /// Endpoint at which the shard takes frames.
    pub endpoint: String,
    /// The progress of the stage.
    #[serde(flatten)]
    pub state: ClaimState,
    /// Upper bound of the shard's memory: weights, keys and values, and scratch, in bytes.
    pub memory_bound_bytes: u64,
    /// Size of the weights, mapped or copied, in bytes.
    pub weights_bytes: u64,
    /// Those of them that are copies in another form than the file's, in bytes. Nothing of them is mapped.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub copied_bytes: u64,
    /// Number of blocks of keys and values for which it has room.
    pub kv_blocks: u32,
    /// Number of tokens in one block.
    pub kv_block_tokens: u32,
    /// Number of shards that the process has loaded. Together with `endpoint` it distinguishes the keys and values of
    /// one load from those of another.
    #[serde(default)]
    pub loads: u64,
}
