//! A process's side of its lease, by its own clock: the same times as the real keeper's.

use super::surroundings::{Moment, micros};
use crate::store::LeaseId;

/// What a process knows of its lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) id: LeaseId,
    /// When it is lost unless a renewal is answered.
    until: Moment,
    gone: bool,
}

/// Between two renewals.
pub(super) const RENEW_EVERY: Moment = micros(super::LEASE_TTL) / 3;
/// After one that was not answered.
pub(super) const RETRY_PAUSE: Moment = 150_000;

// === impl Lease ===

impl Lease {
    pub(super) fn new(id: LeaseId, asked_at: Moment) -> Self {
        Self { id, until: asked_at + micros(super::LEASE_TTL), gone: false }
    }

    pub(super) fn is_lost(&self, now: Moment) -> bool {
        self.gone || now >= self.until
    }

    /// A renewal that was asked for at `asked_at` is answered; whether the lease is kept.
    pub(super) fn renewed(&mut self, known: bool, asked_at: Moment, now: Moment) -> bool {
        if self.is_lost(now) || !known {
            self.gone = true;
            return false;
        }
        self.until = asked_at + micros(super::LEASE_TTL);
        true
    }
}
