//! The reason for which a peer that could not reach a stage evicted it from the cluster: the value of
//! `evictions/<stage>`.

use serde::{Deserialize, Serialize};

/// One eviction, under the lease of the evictor. The stage deletes it when it joins again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictionRecord {
    /// The evictor: `stage <name>` or `gateway <slot>`.
    pub by: String,
    /// The endpoint at which the stage should have taken frames.
    pub endpoint: String,
    /// The error that the evictor got at that endpoint, with its causes.
    pub cause: String,
}
