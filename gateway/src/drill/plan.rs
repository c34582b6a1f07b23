//! A drill's settings.

use schema::StageName;

use super::fault::Fault;

/// The answer to stream, and the fault to bring about in its middle.
#[derive(Debug, Clone)]
pub struct DrillPlan {
    /// The fault.
    pub fault: Fault,
    /// The stage. `None` for the middle one.
    pub stage: Option<StageName>,
    /// Tokens of the answer.
    pub tokens: u32,
    /// Seed of the answer.
    pub seed: u64,
    /// True if requests of other clients may be interrupted.
    pub yes: bool,
}

// === impl DrillPlan ===

impl DrillPlan {
    /// The token after which the fault comes: the one in the middle.
    pub(super) fn fault_after(&self) -> usize {
        (self.tokens / 2) as usize
    }
}
