//! A process's side of its lease, with the same times as the real one.

use std::time::Duration;

use super::time::{Moment, micros};
use crate::store::LeaseId;

/// The state of a process's lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) id: LeaseId,
    gone: bool,
}

/// Times to live of all leases.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(3);
/// Time between two renewals.
pub(super) const RENEW_EVERY: Moment = micros(LEASE_TTL) / 3;
/// Pause after a renewal without an answer.
pub(super) const RETRY_PAUSE: Moment = 150_000;

// === impl Lease ===

impl Lease {
    pub(super) fn new(id: LeaseId) -> Self {
        Self { id, gone: false }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.gone
    }

    /// Handles the response to a renewal. True if the lease is kept.
    pub(super) fn renewed(&mut self, known: bool) -> bool {
        self.gone |= !known;
        !self.gone
    }
}
