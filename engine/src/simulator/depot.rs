//! The coordination store of a simulated cluster: the real state machine, and who is cut off from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use schema::{Keyspace, record::ModelRecord};

use super::surroundings::{Moment, Party, duration};
use crate::link::ClusterKey;
use crate::membership::{Mirror, write_model};
use crate::store::timed::TimedStore;
use crate::store::{Committed, LeaseId, StoreError, Txn};
use crate::view::ClusterView;

/// The store and the newest view of it.
pub(super) struct Depot {
    pub(super) store: TimedStore,
    mirror: Mirror,
    keyspace: Keyspace,
    secret: Option<ClusterKey>,
    /// Counts leases.
    leases: i64,
    /// Counts the views.
    pub(super) serial: u64,
    pub(super) view: Arc<ClusterView>,
    /// Whether it answers nobody.
    pub(super) away: bool,
    /// Who cannot reach it.
    pub(super) cut: BTreeSet<Party>,
}

/// What a process asks of the store.
pub(super) enum Ask {
    Grant,
    Commit(Txn),
    Renew(LeaseId),
    Revoke(LeaseId),
}

/// What it answers.
pub(super) enum Answer {
    Granted(Option<LeaseId>),
    Committed(Result<Committed, StoreError>),
    /// Whether it knew the lease; `None` when that is not known.
    Renewed(Option<bool>),
    Nothing,
}

// === impl Depot ===

impl Depot {
    /// A store that names the model, of a cluster with the key `secret`.
    pub(super) fn new(keyspace: &Keyspace, model: &ModelRecord, secret: Option<ClusterKey>) -> Self {
        let mut store = TimedStore::new(keyspace.prefix());
        let snapshot = store.read(keyspace.prefix()).expect("an empty store is read");
        let mut mirror = Mirror::new(keyspace.clone(), secret.clone(), snapshot);
        store.commit(write_model(keyspace, model, None)).expect("a model is written");
        mirror.apply(store.changes().expect("nothing is compacted"));
        let view = Arc::new(mirror.raw());
        let keyspace = keyspace.clone();
        Self { store, mirror, keyspace, secret, leases: 0, serial: 0, view, away: false, cut: BTreeSet::new() }
    }

    pub(super) fn is_away_for(&self, party: Party) -> bool {
        self.away || self.cut.contains(&party)
    }

    /// Does what is asked at the moment it comes.
    pub(super) fn answer(&mut self, ask: Ask, now: Moment) -> Answer {
        self.store.expire(duration(now));
        match ask {
            Ask::Grant => {
                // No store gives a name that another one gave before it.
                self.leases += 1;
                Answer::Granted(self.store.lease(LeaseId(self.leases), super::LEASE_TTL, duration(now)))
            }
            Ask::Commit(txn) => Answer::Committed(self.store.commit(txn)),
            Ask::Renew(lease) => Answer::Renewed(Some(self.store.renew(lease, duration(now)))),
            Ask::Revoke(lease) => {
                self.store.revoke(lease);
                Answer::Nothing
            }
        }
    }

    /// The key of the cluster.
    pub(super) fn secret(&self) -> Option<&ClusterKey> {
        self.secret.as_ref()
    }

    /// All that the store knows is lost: keys, leases and revisions.
    pub(super) fn lose_everything(&mut self) {
        self.store = TimedStore::new(self.keyspace.prefix());
        self.mirror.read_again(self.store.read(self.keyspace.prefix()).expect("an empty store is read"));
        self.serial += 1;
        self.view = Arc::new(self.mirror.raw());
    }

    /// The cluster as it is read whole.
    pub(super) fn raw(&self) -> ClusterView {
        let snapshot = self.store.read(self.keyspace.prefix()).expect("the store is read");
        ClusterView::new(&self.keyspace, self.secret.as_ref(), snapshot.revision.0, &snapshot.entries)
    }

    /// The new view, if the store has changed since this was asked last.
    pub(super) fn news(&mut self) -> Option<Arc<ClusterView>> {
        let changes = self.store.changes().expect("nothing is compacted");
        if changes.is_empty() {
            return None;
        }
        self.mirror.apply(changes);
        self.serial += 1;
        self.view = Arc::new(self.mirror.raw());
        Some(self.view.clone())
    }
}

// === impl Answer ===

impl Answer {
    /// What the one who asked makes of no answer: whether it was done is not known.
    pub(super) fn lost(self) -> Self {
        let unavailable = || StoreError::Unavailable { endpoints: "depot".to_owned(), reason: "cut off".to_owned() };
        match self {
            Self::Granted(_) => Self::Granted(None),
            Self::Committed(_) => Self::Committed(Err(unavailable())),
            Self::Renewed(_) => Self::Renewed(None),
            Self::Nothing => Self::Nothing,
        }
    }
}
