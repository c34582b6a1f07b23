//! The coordination store of a simulated cluster: the real state machine, and the processes that are cut off from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use schema::{Keyspace, record::ModelRecord};

use super::lease::LEASE_TTL;
use super::process_id::ProcessId;
use super::time::{Moment, duration};
use crate::link::ClusterKey;
use crate::membership::{Mirror, write_model};
use crate::store::timed::TimedStore;
use crate::store::{Committed, LeaseId, StoreError, Txn};
use crate::view::ClusterView;

/// The store and the newest view of it.
pub(super) struct SimulatedStore {
    pub(super) state: TimedStore,
    mirror: Mirror,
    keyspace: Keyspace,
    secret: Option<ClusterKey>,
    /// Counts leases.
    leases: i64,
    /// Counts the views.
    pub(super) serial: u64,
    pub(super) view: Arc<ClusterView>,
    /// True if it answers no process.
    pub(super) away: bool,
    /// The processes that cannot reach it.
    pub(super) cut: BTreeSet<ProcessId>,
}

/// A process's request to the store.
pub(super) enum StoreRequest {
    Grant,
    Commit(Txn),
    Renew(LeaseId),
    Revoke(LeaseId),
}

/// The store's response.
pub(super) enum StoreResponse {
    Granted(Option<LeaseId>),
    Committed(Result<Committed, StoreError>),
    /// True if the store knew the lease. `None` if the response was lost.
    Renewed(Option<bool>),
    Nothing,
}

// === impl SimulatedStore ===

impl SimulatedStore {
    /// A store that names the model, of a cluster with the key `secret`.
    pub(super) fn new(keyspace: &Keyspace, model: &ModelRecord, secret: Option<ClusterKey>) -> Self {
        let mut state = TimedStore::new(keyspace.prefix());
        let snapshot = state.read(keyspace.prefix()).expect("an empty store is read");
        let mut mirror = Mirror::new(keyspace.clone(), secret.clone(), snapshot);
        state.commit(write_model(keyspace, model, None)).expect("a model is written");
        mirror.apply(state.changes().expect("nothing is compacted"));
        let view = Arc::new(mirror.raw());
        let keyspace = keyspace.clone();
        Self { state, mirror, keyspace, secret, leases: 0, serial: 0, view, away: false, cut: BTreeSet::new() }
    }

    pub(super) fn is_away_for(&self, process: ProcessId) -> bool {
        self.away || self.cut.contains(&process)
    }

    /// Executes a request at the time at which it arrives.
    pub(super) fn answer(&mut self, request: StoreRequest, now: Moment) -> StoreResponse {
        self.state.expire(duration(now));
        match request {
            StoreRequest::Grant => {
                // No store hands out a lease id twice, not even after it lost its data.
                self.leases += 1;
                StoreResponse::Granted(self.state.lease(LeaseId(self.leases), LEASE_TTL, duration(now)))
            }
            StoreRequest::Commit(txn) => StoreResponse::Committed(self.state.commit(txn)),
            StoreRequest::Renew(lease) => StoreResponse::Renewed(Some(self.state.renew(lease, duration(now)))),
            StoreRequest::Revoke(lease) => {
                self.state.revoke(lease);
                StoreResponse::Nothing
            }
        }
    }

    /// The key of the cluster.
    pub(super) fn secret(&self) -> Option<&ClusterKey> {
        self.secret.as_ref()
    }

    /// The store loses all its data: keys, leases and revisions.
    pub(super) fn lose_everything(&mut self) {
        self.state = TimedStore::new(self.keyspace.prefix());
        self.mirror.replace(self.state.read(self.keyspace.prefix()).expect("an empty store is read"));
        self.serial += 1;
        self.view = Arc::new(self.mirror.raw());
    }

    /// The cluster, read anew from the store.
    pub(super) fn raw(&self) -> ClusterView {
        let snapshot = self.state.read(self.keyspace.prefix()).expect("the store is read");
        ClusterView::new(&self.keyspace, self.secret.as_ref(), snapshot.revision.0, &snapshot.entries)
    }

    /// The new view, if the store has changed since the last call.
    pub(super) fn news(&mut self) -> Option<Arc<ClusterView>> {
        let changes = self.state.changes().expect("nothing is compacted");
        if changes.is_empty() {
            return None;
        }
        self.mirror.apply(changes);
        self.serial += 1;
        self.view = Arc::new(self.mirror.raw());
        Some(self.view.clone())
    }
}

// === impl StoreResponse ===

impl StoreResponse {
    /// The response as its process sees it if it is lost: the outcome of the request is unknown.
    pub(super) fn lost(self) -> Self {
        let unavailable =
            || StoreError::Unavailable { endpoints: "simulated".to_owned(), reason: "cut off".to_owned() };
        match self {
            Self::Granted(_) => Self::Granted(None),
            Self::Committed(_) => Self::Committed(Err(unavailable())),
            Self::Renewed(_) => Self::Renewed(None),
            Self::Nothing => Self::Nothing,
        }
    }
}
