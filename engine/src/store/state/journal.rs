//! The changes since the state was last written to disk, so that they can be written, or taken back if they cannot.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::lease::Lease;
use super::{Record, State};

/// The value of before, by which one change is taken back.
#[derive(Debug)]
pub(super) enum Reversal {
    /// The key had this record, and the store this revision.
    Record { key: Vec<u8>, prev: Option<Arc<Record>>, revision: i64 },
    /// The lease was this.
    Lease { id: i64, prev: Option<Lease> },
    /// The lease was renewed, which stays.
    Renewal { id: i64 },
}

/// Changes in their order. They are numbered from the start of the process.
#[derive(Debug, Default)]
pub(super) struct Journal {
    changes: VecDeque<Reversal>,
    /// The number of the first.
    begin: u64,
}

/// The keys and leases that changed, each with its new value, `None` if it is gone. A lease has its time to live in
/// seconds and its end.
pub(in crate::store) type Changed = (Vec<(Vec<u8>, Option<Arc<Record>>)>, Vec<(i64, Option<(i64, Duration)>)>);

impl State {
    /// Notes a change, if there is a disk.
    pub(super) fn record(&mut self, undo: impl FnOnce() -> Reversal) {
        if let Some(journal) = &mut self.journal {
            journal.changes.push_back(undo());
        }
    }

    /// Notes that a lease was renewed and that its new end is to be written.
    pub(in crate::store) fn record_renewal(&mut self, id: i64) {
        self.record(|| Reversal::Renewal { id });
    }

    /// The number up to which there are changes that are not on disk. `None` if there are none.
    pub(in crate::store) fn unsettled(&self) -> Option<u64> {
        let journal = self.journal.as_ref().filter(|journal| !journal.changes.is_empty())?;
        Some(journal.begin + journal.changes.len() as u64)
    }

    /// The changes that are not on disk.
    pub(in crate::store) fn changed(&self) -> Changed {
        let (mut keys, mut leases) = (BTreeSet::new(), BTreeSet::new());
        for change in self.journal.iter().flat_map(|journal| &journal.changes) {
            match change {
                Reversal::Record { key, .. } => drop(keys.insert(key)),
                Reversal::Lease { id, .. } | Reversal::Renewal { id } => drop(leases.insert(*id)),
            }
        }
        let records = keys.into_iter().map(|key| (key.clone(), self.records.get(key).cloned())).collect();
        (records, leases.into_iter().map(|id| (id, self.leases.term(id))).collect())
    }

    /// All changes before number `through` are on disk.
    pub(in crate::store) fn settle(&mut self, through: u64) {
        let Some(journal) = &mut self.journal else { return };
        let settled = through.saturating_sub(journal.begin);
        let count = usize::try_from(settled).unwrap_or(usize::MAX).min(journal.changes.len());
        journal.changes.drain(..count);
        journal.begin += count as u64;
    }

    /// Takes back all that is not on disk, the last change first.
    pub(in crate::store) fn undo(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let changes = std::mem::take(&mut journal.changes);
        journal.begin += changes.len() as u64;
        for change in changes.into_iter().rev() {
            match change {
                Reversal::Record { key, prev, revision } => {
                    self.put_back(&key, prev);
                    self.revision = revision;
                }
                Reversal::Lease { id, prev } => self.leases.put_back(id, prev),
                Reversal::Renewal { .. } => {}
            }
        }
        self.history.forget_after(self.revision);
    }

    /// Gives a key the record that it had, or none.
    fn put_back(&mut self, key: &[u8], prev: Option<Arc<Record>>) {
        if let Some(now) = self.records.remove(key) {
            self.bytes -= now.bytes();
            self.leases.detach(now.lease, key);
        }
        if let Some(prev) = prev {
            self.bytes += prev.bytes();
            self.leases.attach(prev.lease, key);
            self.records.insert(key.to_vec(), prev);
        }
    }
}
