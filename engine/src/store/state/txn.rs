//! Transactions: check the whole, then compare, then apply one branch at one revision.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Event, KeyRange, Query, RangeReply, Record, Refusal, State, limits};

/// The field that a condition looks at, and the value that it is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Against {
    Version(i64),
    Create(i64),
    Modified(i64),
    Value(Vec<u8>),
    Lease(i64),
}

/// The relation that the two must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Relation {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// One condition. On a range of keys it must hold for each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Condition {
    pub range: KeyRange,
    pub against: Against,
    pub relation: Relation,
}

/// A put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct PutOp {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// Zero for none.
    pub lease: i64,
    pub prev: bool,
    /// Keep the stored value, or the stored lease.
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

/// A deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct DeleteOp {
    pub range: KeyRange,
    pub prev: bool,
}

/// One step of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Op {
    Range(Query),
    Put(PutOp),
    Delete(DeleteOp),
}

/// If all conditions hold, the first list of steps runs, else the second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::store) struct Transaction {
    pub conditions: Vec<Condition>,
    pub then: Vec<Op>,
    pub otherwise: Vec<Op>,
}

/// The reply to one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum OpReply {
    Range(RangeReply),
    Put { prev: Option<Arc<Record>> },
    Delete { deleted: i64, prev: Vec<Arc<Record>> },
}

/// The reply to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct TxnReply {
    pub succeeded: bool,
    pub replies: Vec<OpReply>,
}

// === impl Condition ===

impl Condition {
    fn holds(&self, state: &State) -> bool {
        let mut records = state.walk(&self.range).peekable();
        if records.peek().is_some() {
            return records.all(|record| self.holds_for(record));
        }
        // An absent key counts as all zeros, except that it has no value to compare.
        let absent =
            Record { key: Vec::new(), value: Vec::new(), create_revision: 0, mod_revision: 0, version: 0, lease: 0 };
        !matches!(self.against, Against::Value(_)) && self.holds_for(&absent)
    }

    fn holds_for(&self, record: &Record) -> bool {
        let order = match &self.against {
            Against::Version(version) => record.version.cmp(version),
            Against::Create(revision) => record.create_revision.cmp(revision),
            Against::Modified(revision) => record.mod_revision.cmp(revision),
            Against::Value(value) => record.value.cmp(value),
            Against::Lease(lease) => record.lease.cmp(lease),
        };
        match self.relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Greater => order == Ordering::Greater,
            Relation::Less => order == Ordering::Less,
        }
    }
}

// === impl State ===

impl State {
    /// Runs a transaction: all of one branch or, if it is refused, nothing.
    pub(in crate::store) fn txn(&mut self, txn: Transaction) -> Result<TxnReply, Refusal> {
        check_shape(&txn)?;
        let succeeded = txn.conditions.iter().all(|condition| condition.holds(self));
        let branch = if succeeded { txn.then } else { txn.otherwise };
        for op in &branch {
            self.check(op)?;
        }
        self.check_room(&branch)?;

        let revision = self.revision + 1;
        let mut events = Vec::new();
        let mut replies = Vec::with_capacity(branch.len());
        for op in branch {
            replies.push(self.apply(op, revision, &mut events)?);
        }
        self.finish(events);
        Ok(TxnReply { succeeded, replies })
    }

    /// Runs a lone put, delete or read as a transaction without conditions.
    pub(in crate::store) fn run(&mut self, op: Op) -> Result<OpReply, Refusal> {
        let reply = self.txn(Transaction { then: vec![op], ..Transaction::default() })?;
        reply.replies.into_iter().next().ok_or(Refusal::Invalid("a step gave no reply"))
    }

    /// Checks that the state admits a step. After this, applying it cannot fail.
    fn check(&self, op: &Op) -> Result<(), Refusal> {
        match op {
            Op::Put(put) => {
                if put.lease != 0 && !self.leases.knows(put.lease) {
                    return Err(Refusal::LeaseNotFound);
                }
                if (put.ignore_value || put.ignore_lease) && !self.records.contains_key(&put.key) {
                    return Err(Refusal::KeyNotFound);
                }
                Ok(())
            }
            Op::Range(query) => self.check_revision(query.revision),
            Op::Delete(_) => Ok(()),
        }
    }

    /// Refuses puts for which there may be no room. The values that they replace are not deducted.
    fn check_room(&self, branch: &[Op]) -> Result<(), Refusal> {
        let (mut keys, mut bytes) = (0, 0);
        for op in branch {
            if let Op::Put(put) = op {
                keys += usize::from(!self.records.contains_key(&put.key));
                bytes += put.key.len() + put.value.len();
            }
        }
        if keys > 0 && self.records.len() + keys > limits::KEYS_MAX {
            return Err(Refusal::Full(format!("{} keys of at most {}", self.records.len(), limits::KEYS_MAX)));
        }
        if bytes > 0 && self.bytes + bytes > limits::STORE_BYTES_MAX {
            return Err(Refusal::Full(format!("{} bytes of at most {}", self.bytes, limits::STORE_BYTES_MAX)));
        }
        Ok(())
    }

    fn apply(&mut self, op: Op, revision: i64, events: &mut Vec<Event>) -> Result<OpReply, Refusal> {
        match op {
            Op::Range(query) => self.range(&query).map(OpReply::Range),
            Op::Put(mut put) => {
                if let Some(old) = self.records.get(&put.key) {
                    if put.ignore_value {
                        put.value.clone_from(&old.value);
                    }
                    if put.ignore_lease {
                        put.lease = old.lease;
                    }
                }
                let wants_prev = put.prev;
                let event = self.insert(put, revision);
                let prev = event.prev.clone().filter(|_| wants_prev);
                events.push(event);
                Ok(OpReply::Put { prev })
            }
            Op::Delete(delete) => {
                let keys: Vec<_> = self.walk(&delete.range).map(|record| record.key.clone()).collect();
                let removed: Vec<_> = keys.iter().filter_map(|key| self.remove(key, revision)).collect();
                let prev = match delete.prev {
                    true => removed.iter().filter_map(|event| event.prev.clone()).collect(),
                    false => Vec::new(),
                };
                let deleted = i64::try_from(removed.len()).unwrap_or(i64::MAX);
                events.extend(removed);
                Ok(OpReply::Delete { deleted, prev })
            }
        }
    }
}

/// Checks that need no state: sizes, and that no key is written twice.
fn check_shape(txn: &Transaction) -> Result<(), Refusal> {
    let most = txn.conditions.len().max(txn.then.len()).max(txn.otherwise.len());
    if most > limits::TXN_OPS_MAX {
        return Err(Refusal::TooManyOps);
    }
    let written = txn.then.iter().chain(&txn.otherwise).filter_map(|op| match op {
        Op::Put(put) => Some(put),
        _ => None,
    });
    let mut bytes = 0usize;
    for put in written {
        check_put(put)?;
        bytes += put.key.len() + put.value.len();
    }
    if bytes > limits::REQUEST_BYTES_MAX {
        return Err(Refusal::RequestTooLarge);
    }
    check_duplicates(&txn.then)?;
    check_duplicates(&txn.otherwise)
}

fn check_put(put: &PutOp) -> Result<(), Refusal> {
    if put.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if put.key.len() > limits::KEY_BYTES_MAX {
        return Err(Refusal::RequestTooLarge);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// Refuses two puts of one key, and a put of a key that is also deleted. At most [`limits::TXN_OPS_MAX`] squared steps.
fn check_duplicates(branch: &[Op]) -> Result<(), Refusal> {
    for (at, op) in branch.iter().enumerate() {
        let Op::Put(put) = op else { continue };
        let clashes = branch.iter().enumerate().any(|(other_at, other)| match other {
            Op::Put(other) => other_at != at && other.key == put.key,
            Op::Delete(delete) => delete.range.contains(&put.key),
            Op::Range(_) => false,
        });
        if clashes {
            return Err(Refusal::DuplicateKey);
        }
    }
    Ok(())
}
