//! The numbers of the simulated processes. They say which kind a process is, not whether it runs.

use std::fmt;

/// A process by its number: gateways come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProcessId(pub(super) usize);

/// The most gateways of a seed; the stages' numbers follow.
pub(super) const GATEWAYS: usize = 3;

// === impl ProcessId ===

impl ProcessId {
    pub(super) fn is_gateway(self) -> bool {
        self.0 < GATEWAYS
    }
}

/// The name of a process in the trace; a stage has the same one in the cluster.
impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_gateway() { 'g' } else { 's' }, self.0)
    }
}
