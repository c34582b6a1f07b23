//! Proof that a stage holds a shard: the value of `claims/<generation>/<slot>`.

use serde::{Deserialize, Serialize};

use crate::{LayerRange, StageName};

/// How far a stage is with its shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum ClaimState {
    /// Mapping the weights.
    Loading,
    /// The weights are read into memory; the stage still serves its shard of the generation before, and loads this one when
    /// every claim of the new generation is ready.
    Ready,
    /// Taking frames.
    Serving,
    /// Could not load; nobody serves these layers.
    Failed {
        /// Why, for the operator.
        reason: String,
    },
}

/// A stage's hold on one shard of one generation, under its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// Who holds it.
    pub stage: StageName,
    /// What is held.
    pub layers: LayerRange,
    /// Where the shard takes frames.
    pub endpoint: String,
    /// How far it is.
    #[serde(flatten)]
    pub state: ClaimState,
    /// The most memory the shard will take: weights, keys and values, scratch, in bytes.
    pub memory_bound_bytes: u64,
    /// Weights mapped, in bytes.
    pub weights_bytes: u64,
    /// Blocks of keys and values it has room for.
    pub kv_blocks: u32,
    /// Tokens in one block.
    pub kv_block_tokens: u32,
    /// Counts the shards that the process has loaded; with `endpoint` it tells the keys and values of one from another's.
    #[serde(default)]
    pub loads: u64,
}
