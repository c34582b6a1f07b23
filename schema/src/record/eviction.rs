//! Why a stage was taken out of the cluster by a peer that could not reach it: the value of `evictions/<stage>`.

use serde::{Deserialize, Serialize};

/// One eviction, under the lease of whoever evicted; the stage deletes it when it joins again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictionRecord {
    /// The evictor: `stage <name>` or `gateway <slot>`.
    pub by: String,
    /// The endpoint at which it should have taken frames.
    pub endpoint: String,
    /// The error that was met there, with its causes.
    pub cause: String,
}
