//! The values that callers pass to a store and get back.

use std::fmt;

use super::LeaseId;

/// A point in a store's history. It grows with every commit that changed something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key and the value stored under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The stored bytes.
    pub value: Vec<u8>,
    /// The revision of the commit that wrote this value.
    pub mod_revision: Revision,
    /// The lease the key lives under.
    pub lease: Option<LeaseId>,
}

/// The entries under a prefix at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision at the moment of reading. A watch goes on from here.
    pub revision: Revision,
    /// The entries, in byte order of their keys.
    pub entries: Vec<Entry>,
}

impl Snapshot {
    /// The entry of exactly this key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| entry.key.as_bytes().cmp(key.as_bytes())).ok()?;
        self.entries.get(at)
    }
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// Nothing is stored under the key.
    Absent {
        /// The key.
        key: String,
    },
    /// Something is stored under the key.
    Present {
        /// The key.
        key: String,
    },
    /// The key was last written at exactly this revision.
    Unchanged {
        /// The key.
        key: String,
        /// The revision it was read with.
        mod_revision: Revision,
    },
    /// No key starts with the prefix.
    NothingUnder {
        /// The prefix.
        prefix: String,
    },
}

/// A change asked for by a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Store a value, over whatever is there.
    Put {
        /// The key.
        key: String,
        /// The bytes to store.
        value: Vec<u8>,
        /// The lease the key is to live under.
        lease: Option<LeaseId>,
    },
    /// Remove a key. Removing an absent one changes nothing.
    Delete {
        /// The key.
        key: String,
    },
}

/// Conditions and the writes that are applied if all of them hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions that must hold.
    pub compares: Vec<Compare>,
    /// The writes that are then applied.
    pub writes: Vec<Write>,
}

/// The outcome of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// All writes were applied.
    Applied {
        /// The store's revision after it.
        revision: Revision,
    },
    /// A condition did not hold. Nothing was written.
    Refused,
}

/// One change that a watch reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key was written.
    Put(Entry),
    /// A key was removed, by a commit or with its lease.
    Deleted {
        /// The key.
        key: String,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted { key, .. } => key,
        }
    }

    /// The revision of the commit that changed it.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.mod_revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}
