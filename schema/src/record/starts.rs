//! How often a stage was started lately: the value of `starts/<stage>`.

use serde::{Deserialize, Serialize};

/// Starts of a stage since it last stopped in good order. The key is under a lease that nobody renews, so it goes when the
/// stage has lived for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartsRecord {
    /// How many, the one that wrote this among them.
    pub starts: u32,
    /// How long the stage waits before it joins, in seconds.
    pub wait_s: u64,
}
