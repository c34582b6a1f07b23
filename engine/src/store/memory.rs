//! The store in this process: the state machine behind a lock, with tokio's clock.
//!
//! No task runs in the background. Each access to the state ends the leases that are over, and each task that waits for
//! changes also waits for the next lease to end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::lease::{Renewal, Renewing};
use super::state::{
    Against, Condition, DeleteOp, Event, HistoryGone, KeyRange, Op, PutOp, Query, Record, Refusal, Relation, State,
    Transaction,
};
use super::watch::ChangeSource;
use super::{
    Change, Committed, Compare, Entry, LeaseGrant, LeaseId, Revision, Snapshot, Store, StoreError, Txn, Watch, Write,
};

/// A state machine that several tasks use, with a channel on which they wait for changes.
#[derive(Debug)]
pub(super) struct Host {
    state: Mutex<State>,
    /// Origin of the state's times.
    origin: Instant,
    changed: watch::Sender<()>,
}

/// A store that lives and dies with this process.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    host: Arc<Host>,
}

// === impl Host ===

impl Host {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::new()), origin: Instant::now(), changed: watch::Sender::new(()) }
    }

    /// Reads the state as it is now. `act` also gets the time.
    pub(super) fn read<T>(&self, act: impl FnOnce(&State, Duration) -> T) -> T {
        let now = self.origin.elapsed();
        act(&self.lock(now), now)
    }

    /// Changes the state and wakes the tasks that wait for changes.
    pub(super) fn write<T>(&self, act: impl FnOnce(&mut State, Duration) -> T) -> T {
        let now = self.origin.elapsed();
        let reply = act(&mut self.lock(now), now);
        self.changed.send_replace(());
        reply
    }

    /// Locks the state and ends the leases whose time is over.
    fn lock(&self, now: Duration) -> MutexGuard<'_, State> {
        // A panic in the pure state machine leaves at worst one commit half done. Going on is better than a dead store.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.expire(now) {
            self.changed.send_replace(());
        }
        state
    }

    /// A receiver for `Host::wait`. Subscribe before reading the state: then the wait misses nothing.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until there may be something new: a change, or the end of a lease.
    pub(super) async fn wait(&self, changed: &mut watch::Receiver<()>) {
        let deadline = self.read(|state, _| state.next_deadline());
        let lease_over = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(self.origin + deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Cannot fail: the host owns the sender.
            _ = changed.changed() => {}
            () = lease_over => {}
        }
    }
}

// === impl MemoryStore ===

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self { host: Arc::new(Host::new()) }
    }

    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Ends a lease without its holder, as an operator would.
    pub fn revoke(&self, id: LeaseId) -> Result<(), StoreError> {
        self.host.write(|state, _| state.revoke(id.0)).map_err(|refusal| refused(refusal, Some(id)))
    }

    /// Forgets the history before `revision`.
    pub fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.host.write(|state, _| state.compact(number(revision))).map_err(|refusal| refused(refusal, None))
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
        self.host.read(|state, _| read(state, prefix))
    }

    async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        self.host.write(|state, _| commit(state, txn))
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
            .write(|state, now| state.grant(0, super::lease::whole_seconds(ttl), now))
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
            let (changes, next) = self.host.read(|state, _| changes(state, &self.range, self.next))?;
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
        match self.host.write(|state, now| state.keep_alive(self.id, now)) {
            Some(seconds) => Renewal::Renewed { ttl: Duration::from_secs(seconds.unsigned_abs()) },
            None => Renewal::Gone,
        }
    }

    async fn revoke(&mut self) {
        // Refused only if the lease is gone already.
        let _ = self.host.write(|state, _| state.revoke(self.id));
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
pub(super) fn commit(state: &mut State, txn: Txn) -> Result<Committed, StoreError> {
    let lease = txn.writes.iter().find_map(|write| match write {
        Write::Put { lease, .. } => *lease,
        Write::Delete { .. } => None,
    });
    let txn = Transaction {
        conditions: txn.compares.into_iter().map(condition).collect::<Result<_, _>>()?,
        then: txn.writes.into_iter().map(op).collect::<Result<_, _>>()?,
        otherwise: Vec::new(),
    };
    let reply = state.txn(txn).map_err(|refusal| refused(refusal, lease))?;
    Ok(match reply.succeeded {
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
    let (key, against, relation) = match compare {
        Compare::Absent { key } => (key, Against::Create(0), Relation::Equal),
        Compare::Present { key } => (key, Against::Create(0), Relation::Greater),
        Compare::Unchanged { key, mod_revision } => (key, Against::Modified(number(mod_revision)), Relation::Equal),
    };
    Ok(Condition { range: one(key)?, against, relation })
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
        (refusal, _) => StoreError::Invalid { reason: refusal.to_string() },
    }
}
