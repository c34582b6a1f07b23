//! The in-memory store without tokio: the state machine with the store's own types, and the time as a parameter.
//!
//! For tests with a clock of their own. Nothing waits here and nothing renews: both are up to the caller.

use std::time::Duration;

use super::memory::{changes, commit, read};
use super::state::{KeyRange, State};
use super::{Change, Committed, LeaseId, Snapshot, StoreError, Txn};

/// A store, and the revision from which its only follower reads on.
pub(crate) struct TimedStore {
    state: State,
    everything: KeyRange,
    next: i64,
}

// === impl TimedStore ===

impl TimedStore {
    /// An empty store whose changes under `prefix` are followed.
    pub(crate) fn new(prefix: &str) -> Self {
        let state = State::new();
        let next = state.revision() + 1;
        Self { state, everything: KeyRange::prefix(prefix.as_bytes()), next }
    }

    pub(crate) fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        read(&self.state, prefix)
    }

    pub(crate) fn commit(&mut self, txn: Txn) -> Result<Committed, StoreError> {
        commit(&mut self.state, txn)
    }

    /// The changes since the last call.
    pub(crate) fn changes(&mut self) -> Result<Vec<Change>, StoreError> {
        let (found, next) = changes(&self.state, &self.everything, self.next)?;
        self.next = next;
        Ok(found)
    }

    /// Grants the lease `id` with `ttl` and returns its id.
    pub(crate) fn lease(&mut self, id: LeaseId, ttl: Duration, now: Duration) -> Option<LeaseId> {
        self.state.grant(id.0, super::lease::whole_seconds(ttl), now).ok().map(|(id, _)| LeaseId(id))
    }

    /// Renews a lease. `false` if it is unknown.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Duration) -> bool {
        self.state.keep_alive(id.0, now).is_some()
    }

    pub(crate) fn knows(&self, id: LeaseId, now: Duration) -> bool {
        self.state.lease_status(id.0, now).is_some()
    }

    /// Renews all leases, as a store does that was away itself.
    pub(crate) fn renew_all(&mut self, now: Duration) {
        for id in self.state.lease_ids() {
            self.state.keep_alive(id, now);
        }
    }

    pub(crate) fn leases(&self) -> usize {
        self.state.lease_ids().len()
    }

    /// Ends a lease and deletes its keys. Does nothing if it is unknown.
    pub(crate) fn revoke(&mut self, id: LeaseId) {
        let _ = self.state.revoke(id.0);
    }

    /// Ends the leases whose time is over.
    pub(crate) fn expire(&mut self, now: Duration) {
        self.state.expire(now);
    }
}
