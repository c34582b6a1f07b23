//! The keys that a request names, and reading them: at a revision, filtered, sorted, limited.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Record, Refusal, State};

/// Keys as etcd's requests name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum KeyRange {
    One(Vec<u8>),
    /// From a key up to another one, which is not included.
    Half(Vec<u8>, Vec<u8>),
    From(Vec<u8>),
}

/// The bounds of a walk over an ordered map.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The field by which a reply is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum SortBy {
    Key,
    Version,
    Create,
    Modified,
    Value,
}

/// A read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Query {
    pub range: KeyRange,
    /// Zero for the current one.
    pub revision: i64,
    /// Zero for no limit.
    pub limit: i64,
    /// The field to sort by, and true for descending order.
    pub sort: Option<(SortBy, bool)>,
    pub keys_only: bool,
    pub count_only: bool,
    /// Inclusive bounds on the revisions. Zero for none.
    pub mod_revisions: (i64, i64),
    pub create_revisions: (i64, i64),
}

/// The result of a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::store) struct RangeReply {
    pub records: Vec<Arc<Record>>,
    /// True if the limit cut records off.
    pub more: bool,
    /// The number of records in the range, whatever the limit and filters.
    pub count: i64,
    pub keys_only: bool,
}

// === impl KeyRange ===

impl KeyRange {
    /// From the two fields of a request: an empty end means one key, a zero byte means all keys from `key` on.
    pub(in crate::store) fn new(key: Vec<u8>, end: Vec<u8>) -> Result<Self, Refusal> {
        if key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        Ok(match end.as_slice() {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Half(key, end),
        })
    }

    /// All keys that start with `prefix`.
    pub(in crate::store) fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.last_mut() {
            if *last < 0xff {
                *last += 1;
                return Self::Half(prefix.to_vec(), end);
            }
            end.pop();
        }
        Self::From(prefix.to_vec())
    }

    pub(in crate::store) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => key == one.as_slice(),
            Self::Half(start, end) => key >= start.as_slice() && key < end.as_slice(),
            Self::From(start) => key >= start.as_slice(),
        }
    }

    /// Bounds for a walk over an ordered map. `None` if the range is empty.
    fn bounds(&self) -> Option<Bounds<'_>> {
        match self {
            Self::One(key) => Some((Bound::Included(key), Bound::Included(key))),
            Self::Half(start, end) if start >= end => None,
            Self::Half(start, end) => Some((Bound::Included(start), Bound::Excluded(end))),
            Self::From(start) => Some((Bound::Included(start), Bound::Unbounded)),
        }
    }
}

// === impl Query ===

impl Query {
    /// A read of all of a range as it is now.
    pub(in crate::store) fn all(range: KeyRange) -> Self {
        Self {
            range,
            revision: 0,
            limit: 0,
            sort: None,
            keys_only: false,
            count_only: false,
            mod_revisions: (0, 0),
            create_revisions: (0, 0),
        }
    }

    fn lets_through(&self, record: &Record) -> bool {
        let within = |value: i64, (least, most): (i64, i64)| value >= least && (most == 0 || value <= most);
        within(record.mod_revision, self.mod_revisions) && within(record.create_revision, self.create_revisions)
    }
}

// === impl State ===

impl State {
    /// Answers a read.
    pub(in crate::store) fn range(&self, query: &Query) -> Result<RangeReply, Refusal> {
        self.check_revision(query.revision)?;
        let mut records = match query.revision {
            present if self.is_present(present) => self.walk(&query.range).cloned().collect(),
            past => self.walk_at(&query.range, past),
        };
        let count = i64::try_from(records.len()).unwrap_or(i64::MAX);
        if query.count_only {
            return Ok(RangeReply { count, ..RangeReply::default() });
        }
        records.retain(|record| query.lets_through(record));
        if let Some((by, descending)) = query.sort {
            sort(&mut records, by, descending);
        }
        let limit = usize::try_from(query.limit).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
        let more = records.len() > limit;
        records.truncate(limit);
        Ok(RangeReply { records, more, count, keys_only: query.keys_only })
    }

    /// Checks that the store can be read at a revision: it is not in the future, and not compacted.
    pub(super) fn check_revision(&self, revision: i64) -> Result<(), Refusal> {
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if !self.is_present(revision) && revision < self.history.oldest() {
            return Err(Refusal::Compacted);
        }
        Ok(())
    }

    fn is_present(&self, revision: i64) -> bool {
        revision <= 0 || revision == self.revision
    }

    /// The current records of a range, in key order.
    pub(super) fn walk(&self, range: &KeyRange) -> impl Iterator<Item = &Arc<Record>> {
        range.bounds().into_iter().flat_map(|bounds| self.records.range::<[u8], _>(bounds)).map(|(_, record)| record)
    }

    /// The records of a range at a past revision: the current ones with the younger events undone.
    fn walk_at(&self, range: &KeyRange, revision: i64) -> Vec<Arc<Record>> {
        let mut records: BTreeMap<&[u8], Arc<Record>> =
            self.walk(range).map(|record| (record.key.as_slice(), record.clone())).collect();
        for event in self.history.back_to(revision).filter(|event| range.contains(&event.record.key)) {
            match &event.prev {
                Some(prev) => records.insert(&event.record.key, prev.clone()),
                None => records.remove(event.record.key.as_slice()),
            };
        }
        records.into_values().collect()
    }
}

fn sort(records: &mut [Arc<Record>], by: SortBy, descending: bool) {
    records.sort_by(|a, b| {
        let order = match by {
            SortBy::Key => a.key.cmp(&b.key),
            SortBy::Version => a.version.cmp(&b.version),
            SortBy::Create => a.create_revision.cmp(&b.create_revision),
            SortBy::Modified => a.mod_revision.cmp(&b.mod_revision),
            SortBy::Value => a.value.cmp(&b.value),
        };
        if descending { order.reverse() } else { order }
    });
}
