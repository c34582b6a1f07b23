//! The number of recent starts of a stage: the value of `starts/<stage>`.

use serde::{Deserialize, Serialize};

/// Starts of a stage since it last stopped in good order. The key is under a lease that is never renewed, so it expires
/// after the stage has lived for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartsRecord {
    /// Number of starts, including the one that wrote this record.
    pub starts: u32,
    /// Time that the stage waits before it joins, in seconds.
    pub wait_s: u64,
}
