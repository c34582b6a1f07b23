//! A process's side of its lease: what the store said of it, and the same times as the real keeper's.

use super::surroundings::{Moment, micros};
use crate::store::LeaseId;

/// What a process knows of its lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) id: LeaseId,
    gone: bool,
}

/// Between two renewals.
pub(super) const RENEW_EVERY: Moment = micros(super::LEASE_TTL) / 3;
/// After one that was not answered.
pub(super) const RETRY_PAUSE: Moment = 150_000;

// === impl Lease ===

impl Lease {
    pub(super) fn new(id: LeaseId) -> Self {
        Self { id, gone: false }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.gone
    }

    /// A renewal is answered; whether the lease is kept.
    pub(super) fn renewed(&mut self, known: bool) -> bool {
        self.gone |= !known;
        !self.gone
    }
}
