//! The store in this process, without a network between it and its callers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::disk::DiskError;
use super::host::Host;
use super::lease::{Renewal, Renewing};
use super::state::{
    Against, Condition, DeleteOp, Event, HistoryGone, KeyRange, Op, PutOp, Query, Record, Refusal, Relation, State,
    Transaction,
};
use super::watch::ChangeSource;
use super::{
    Change, Committed, Compare, Entry, LeaseGrant, LeaseId, Revision, Snapshot, Store, StoreError, Txn, Watch, Write,
};

/// A store in this process. It ends with it, unless a file keeps it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    host: Arc<Host>,
}

// === impl MemoryStore ===

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self { host: Arc::new(Host::new()) }
    }

    /// The store that the file at `path` keeps, which is made if it is missing. Answers come when what they tell is on
    /// disk.
    ///
    /// # Errors
    /// [`DiskError`] if the file is open elsewhere, of another format, damaged, or if the system fails.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        Ok(Self { host: Host::open(path)? })
    }

    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Ends a lease without its holder, as an operator would.
    pub async fn revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        self.host.commit(|state, _| state.revoke(id.0)).await.map_err(|refusal| refused(refusal, Some(id)))
    }

    /// Forgets the history before `revision`.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.host.commit(|state, _| state.compact(number(revision))).await.map_err(|refusal| refused(refusal, None))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.host.view(|state, _| read(state, prefix)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        let lease = lease_of(&txn);
        let txn = transaction(txn)?;
        let applied = self.host.commit(|state, _| apply(state, txn)).await;
        applied.map_err(|refusal| refused(refusal, lease))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        Ok(Watch::new(MemoryWatch {
            changed: self.host.subscribe(),
            host: self.host.clone(),
            range: KeyRange::prefix(prefix.as_bytes()),
            next: number(after).saturating_add(1),
        }))
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseGrant, StoreError> {
        let (id, granted) = self
            .host
            .commit(|state, now| state.grant(0, super::lease::whole_seconds(ttl), now))
            .await
            .map_err(|refusal| refused(refusal, None))?;
        let renewal = MemoryRenewal { host: self.host.clone(), id };
        Ok(LeaseGrant::new(LeaseId(id), Duration::from_secs(granted.unsigned_abs()), renewal))
    }
}

// --- Watching ---

struct MemoryWatch {
    host: Arc<Host>,
    changed: watch::Receiver<()>,
    range: KeyRange,
    /// The first revision not yet reported.
    next: i64,
}

#[async_trait]
impl ChangeSource for MemoryWatch {
    async fn next(&mut self) -> Result<Vec<Change>, StoreError> {
        loop {
            self.changed.mark_unchanged();
            let (changes, next) = self.host.view(|state, _| changes(state, &self.range, self.next)).await?;
            self.next = next;
            if !changes.is_empty() {
                return Ok(changes);
            }
            self.host.wait(&mut self.changed).await;
        }
    }
}

// --- Renewing ---

struct MemoryRenewal {
    host: Arc<Host>,
    id: i64,
}

#[async_trait]
impl Renewing for MemoryRenewal {
    async fn renew(&mut self) -> Renewal {
        match self.host.renew(self.id).await {
            Some(seconds) => Renewal::Renewed { ttl: Duration::from_secs(seconds.unsigned_abs()) },
            None => Renewal::Gone,
        }
    }

    async fn revoke(&mut self) {
        // Refused only if the lease is gone already.
        let _ = self.host.commit(|state, _| state.revoke(self.id)).await;
    }
}

// --- Between the store's values and the state machine's ---

/// The entries under `prefix`.
pub(super) fn read(state: &State, prefix: &str) -> Result<Snapshot, StoreError> {
    let query = Query::all(KeyRange::prefix(prefix.as_bytes()));
    let found = state.range(&query).map_err(|refusal| refused(refusal, None))?;
    let entries = found.records.iter().filter_map(|record| entry(record)).collect();
    Ok(Snapshot { revision: revision(state.revision()), entries })
}

/// Applies `txn` if its compares hold.
#[cfg(test)]
pub(super) fn commit(state: &mut State, txn: Txn) -> Result<Committed, StoreError> {
    let lease = lease_of(&txn);
    apply(state, transaction(txn)?).map_err(|refusal| refused(refusal, lease))
}

/// The lease that a transaction puts keys under.
fn lease_of(txn: &Txn) -> Option<LeaseId> {
    txn.writes.iter().find_map(|write| match write {
        Write::Put { lease, .. } => *lease,
        Write::Delete { .. } => None,
    })
}

fn transaction(txn: Txn) -> Result<Transaction, StoreError> {
    Ok(Transaction {
        conditions: txn.compares.into_iter().map(condition).collect::<Result<_, _>>()?,
        then: txn.writes.into_iter().map(op).collect::<Result<_, _>>()?,
        otherwise: Vec::new(),
    })
}

fn apply(state: &mut State, txn: Transaction) -> Result<Committed, Refusal> {
    Ok(match state.txn(txn)?.succeeded {
        true => Committed::Applied { revision: revision(state.revision()) },
        false => Committed::Refused,
    })
}

/// The changes in `range` from revision `from` on, and the revision to go on from.
pub(super) fn changes(state: &State, range: &KeyRange, from: i64) -> Result<(Vec<Change>, i64), StoreError> {
    let (events, next) = state
        .changes(range, from)
        .map_err(|HistoryGone { oldest }| StoreError::Compacted { oldest: revision(oldest) })?;
    Ok((events.iter().filter_map(change).collect(), next))
}

fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// `None` for a key that is not text. Other clients may write such keys, but callers of this store do not see them.
fn entry(record: &Record) -> Option<Entry> {
    Some(Entry {
        key: String::from_utf8(record.key.clone()).ok()?,
        value: record.value.clone(),
        mod_revision: revision(record.mod_revision),
        lease: (record.lease != 0).then_some(LeaseId(record.lease)),
    })
}

fn change(event: &Event) -> Option<Change> {
    let entry = entry(&event.record)?;
    Some(match event.deleted {
        true => Change::Deleted { key: entry.key, revision: entry.mod_revision },
        false => Change::Put(entry),
    })
}

fn condition(compare: Compare) -> Result<Condition, StoreError> {
    let (range, against, relation) = match compare {
        Compare::Absent { key } => (one(key)?, Against::Create(0), Relation::Equal),
        Compare::Present { key } => (one(key)?, Against::Create(0), Relation::Greater),
        Compare::Unchanged { key, mod_revision } => {
            (one(key)?, Against::Modified(number(mod_revision)), Relation::Equal)
        }
        Compare::NothingUnder { prefix } => (KeyRange::prefix(prefix.as_bytes()), Against::Create(0), Relation::Equal),
    };
    Ok(Condition { range, against, relation })
}

fn op(write: Write) -> Result<Op, StoreError> {
    Ok(match write {
        Write::Put { key, value, lease } => Op::Put(PutOp {
            key: key.into_bytes(),
            value,
            lease: lease.map_or(0, |lease| lease.0),
            prev: false,
            ignore_value: false,
            ignore_lease: false,
        }),
        Write::Delete { key } => Op::Delete(DeleteOp { range: one(key)?, prev: false }),
    })
}

fn one(key: String) -> Result<KeyRange, StoreError> {
    KeyRange::new(key.into_bytes(), Vec::new()).map_err(|refusal| refused(refusal, None))
}

fn refused(refusal: Refusal, lease: Option<LeaseId>) -> StoreError {
    match (refusal, lease) {
        (Refusal::LeaseNotFound, Some(id)) => StoreError::LeaseGone { id },
        (Refusal::Full(reason), _) => StoreError::Full { reason },
        (Refusal::Unsettled(reason), _) => StoreError::Unavailable { endpoints: "this process".to_owned(), reason },
        (refusal, _) => StoreError::Invalid { reason: refusal.to_string() },
    }
}
