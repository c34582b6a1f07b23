//! The in-memory state machine of etcd's model: keys with versions, transactions, leases, a bounded history.
//!
//! Pure: no task, no socket, no clock. The current time is a parameter, counted from an origin of the caller's choice.

mod history;
mod journal;
mod lease;
mod range;
mod txn;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::history::History;
use self::journal::{Journal, Reversal};
use self::lease::Leases;
use super::limits;

pub(super) use self::history::{Event, HistoryGone};
pub(super) use self::lease::LeaseStatus;
pub(super) use self::range::{KeyRange, Query, RangeReply, SortBy};
pub(super) use self::txn::{Against, Condition, DeleteOp, Op, OpReply, PutOp, Relation, Transaction, TxnReply};

/// A key with its metadata in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// The revision at which the key was created, since it was last absent.
    pub create_revision: i64,
    pub mod_revision: i64,
    /// The number of writes to the key since it was created. Zero in the record of a deletion.
    pub version: i64,
    /// Zero for none.
    pub lease: i64,
}

impl Record {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// The reason for which the state machine refused a request. If etcd's clients look for a text, it is that text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: mvcc: database space exceeded: {0}")]
    Full(String),
    #[error("the disk of the store failed, so this may or may not be written: {0}")]
    Unsettled(String),
    #[error("etcdserver: invalid request: {0}")]
    Invalid(&'static str),
}

/// The whole store.
#[derive(Debug)]
pub(super) struct State {
    revision: i64,
    records: BTreeMap<Vec<u8>, Arc<Record>>,
    /// Bytes of all keys and values.
    bytes: usize,
    leases: Leases,
    history: History,
    /// The changes that are not on disk yet, if there is a disk.
    journal: Option<Journal>,
}

/// A state as a file has it.
#[derive(Debug)]
pub(super) struct KeptState {
    pub records: Vec<Record>,
    /// The id, the time to live in seconds and the end of each lease.
    pub leases: Vec<(i64, i64, Duration)>,
    pub revision: i64,
    /// The first id to try for a lease that comes without one.
    pub first_lease: i64,
}

// === impl State ===

impl State {
    /// An empty store. Like etcd's, its first revision is 1.
    pub(super) fn new() -> Self {
        Self {
            revision: 1,
            records: BTreeMap::new(),
            bytes: 0,
            leases: Leases::new(),
            history: History::new(),
            journal: None,
        }
    }

    /// The state of a file, which journals what changes from now on. Its history begins here.
    pub(super) fn restore(kept: KeptState) -> Self {
        let mut state = Self { revision: kept.revision, journal: Some(Journal::default()), ..Self::new() };
        state.leases.restore(kept.first_lease, kept.leases);
        for record in kept.records {
            state.bytes += record.bytes();
            state.leases.attach(record.lease, &record.key);
            state.records.insert(record.key.clone(), Arc::new(record));
        }
        state.history.compact(kept.revision + 1);
        state
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the history before `revision`.
    pub(super) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if revision <= self.history.oldest() {
            return Err(Refusal::Compacted);
        }
        self.history.compact(revision);
        Ok(())
    }

    /// The changes under `range` at or after the revision `from`, whole commits, and the revision to go on from.
    pub(super) fn changes(&self, range: &KeyRange, from: i64) -> Result<(Vec<Event>, i64), HistoryGone> {
        self.history.since(range, from, self.revision)
    }

    // --- Leases ---

    /// Grants a lease under `id`, or under an id of the store's choice if `id` is zero.
    pub(super) fn grant(&mut self, id: i64, ttl_seconds: i64, now: Duration) -> Result<(i64, i64), Refusal> {
        let granted = self.leases.grant(id, ttl_seconds, now)?;
        self.record(|| Reversal::Lease { id: granted.0, prev: None });
        Ok(granted)
    }

    /// Renews a lease. `None` if it is unknown.
    pub(super) fn keep_alive(&mut self, id: i64, now: Duration) -> Option<i64> {
        self.leases.keep_alive(id, now)
    }

    pub(super) fn lease_status(&self, id: i64, now: Duration) -> Option<LeaseStatus> {
        self.leases.status(id, now)
    }

    pub(super) fn lease_ids(&self) -> Vec<i64> {
        self.leases.ids()
    }

    /// Ends a lease and deletes its keys in one commit.
    pub(super) fn revoke(&mut self, id: i64) -> Result<(), Refusal> {
        let lease = self.leases.remove(id).ok_or(Refusal::LeaseNotFound)?;
        self.record(|| Reversal::Lease { id, prev: Some(lease.clone()) });
        let revision = self.revision + 1;
        let mut events = Vec::new();
        for key in lease.keys() {
            events.extend(self.remove(key, revision));
        }
        self.finish(events);
        Ok(())
    }

    /// Ends every lease whose time is over. True if there was one.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let due = self.leases.due(now);
        let any = !due.is_empty();
        for id in due {
            // Cannot fail: the lease was just listed.
            let _ = self.revoke(id);
        }
        any
    }

    /// The time at which the next lease ends if it is not renewed.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.leases.next_deadline()
    }

    // --- Writing: `txn.rs` checks, these functions keep records, sizes and leases in step ---

    fn insert(&mut self, put: PutOp, revision: i64) -> Event {
        let prev = self.records.get(&put.key).cloned();
        let record = Arc::new(Record {
            create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            mod_revision: revision,
            lease: put.lease,
            key: put.key,
            value: put.value,
        });
        if let Some(prev) = &prev {
            self.bytes -= prev.bytes();
            self.leases.detach(prev.lease, &prev.key);
        }
        self.bytes += record.bytes();
        self.leases.attach(record.lease, &record.key);
        self.records.insert(record.key.clone(), record.clone());
        let before = self.revision;
        self.record(|| Reversal::Record { key: record.key.clone(), prev: prev.clone(), revision: before });
        Event { deleted: false, record, prev }
    }

    fn remove(&mut self, key: &[u8], revision: i64) -> Option<Event> {
        let prev = self.records.remove(key)?;
        self.bytes -= prev.bytes();
        self.leases.detach(prev.lease, key);
        let before = self.revision;
        self.record(|| Reversal::Record { key: key.to_vec(), prev: Some(prev.clone()), revision: before });
        let record = Arc::new(Record {
            key: key.to_vec(),
            value: Vec::new(),
            create_revision: 0,
            mod_revision: revision,
            version: 0,
            lease: 0,
        });
        Some(Event { deleted: true, record, prev: Some(prev) })
    }

    /// Closes a commit: its events become history, and the revision grows if there are any.
    fn finish(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.revision += 1;
            self.history.push(events);
        }
    }
}

#[cfg(test)]
mod tests;
