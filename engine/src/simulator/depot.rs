//! The coordination store of a simulated cluster: the real state machine, and who is cut off from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use schema::{Keyspace, record::ModelRecord};

use super::surroundings::{Moment, Party, duration};
use crate::membership::{Mirror, write_model};
use crate::store::timed::TimedStore;
use crate::store::{Committed, LeaseId, StoreError, Txn};
use crate::view::ClusterView;

/// The store and the newest view of it.
pub(super) struct Depot {
    pub(super) store: TimedStore,
    mirror: Mirror,
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
    pub(super) fn new(keyspace: &Keyspace, model: &ModelRecord) -> Self {
        let mut store = TimedStore::new(keyspace.prefix());
        let snapshot = store.read(keyspace.prefix()).expect("an empty store is read");
        let mut mirror = Mirror::new(keyspace.clone(), snapshot);
        store.commit(write_model(keyspace, model)).expect("a model is written");
        mirror.apply(store.changes().expect("nothing is compacted"));
        let view = Arc::new(mirror.view());
        Self { store, mirror, view, away: false, cut: BTreeSet::new() }
    }

    pub(super) fn is_away_for(&self, party: Party) -> bool {
        self.away || self.cut.contains(&party)
    }

    /// Does what is asked at the moment it comes.
    pub(super) fn answer(&mut self, ask: Ask, now: Moment) -> Answer {
        self.store.expire(duration(now));
        match ask {
            Ask::Grant => Answer::Granted(self.store.lease(super::LEASE_TTL, duration(now))),
            Ask::Commit(txn) => Answer::Committed(self.store.commit(txn)),
            Ask::Renew(lease) => Answer::Renewed(Some(self.store.renew(lease, duration(now)))),
            Ask::Revoke(lease) => {
                self.store.revoke(lease);
                Answer::Nothing
            }
        }
    }

    /// The new view, if the store has changed since this was asked last.
    pub(super) fn news(&mut self) -> Option<Arc<ClusterView>> {
        let changes = self.store.changes().expect("nothing is compacted");
        if changes.is_empty() {
            return None;
        }
        self.mirror.apply(changes);
        self.view = Arc::new(self.mirror.view());
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
