//! The reasons that a cluster is not exported or imported.

use engine::store::{StoreError, limits::TXN_WRITES_MAX};

use super::document::{FORMAT, VERSION};
use super::limits::DOCUMENT_BYTES_MAX;

/// The reason that a cluster is not exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nothing to export.
    #[error("the store has no cluster {cluster}: expected keys under {prefix}; --cluster names another one")]
    NoCluster {
        /// The cluster that was asked for.
        cluster: String,
        /// The prefix of its keys.
        prefix: String,
    },
    /// The document is larger than any that is made.
    #[error("the document is larger than {DOCUMENT_BYTES_MAX} bytes, the most that is exported and imported")]
    Large,
    /// The text is no document, or a part of one.
    #[error("this is no whole export of a cluster ({reason}): expected what `baton store export` wrote, unchanged")]
    NotADocument {
        /// The fault in it.
        reason: String,
    },
    /// The text is a document of another kind.
    #[error("format is {found:?}: expected {FORMAT:?}, as `baton store export` writes it")]
    Format {
        /// The format that it names.
        found: String,
    },
    /// The document is of another version.
    #[error("the document has version {found}: expected {VERSION}; import it with the baton that exported it")]
    Version {
        /// The version that it names.
        found: u64,
    },
    /// The document is of another cluster.
    #[error("the document holds cluster {found:?}: expected {expected:?}; --cluster names the one to import")]
    OtherCluster {
        /// The cluster in it.
        found: String,
        /// The cluster that was asked for.
        expected: String,
    },
    /// The keys are not those that were exported.
    #[error(
        "the permanent keys have the digest {found}: expected {expected}, as the document says; it was damaged or \
         edited: export the cluster again, and change it after the import"
    )]
    Digest {
        /// The digest of what is there.
        found: String,
        /// The digest that the document names.
        expected: String,
    },
    /// A key that does not belong there.
    #[error("the document cannot be imported: {key:?}: {reason}")]
    Key {
        /// The key, or its beginning.
        key: String,
        /// The fault.
        reason: String,
    },
    /// The document has too many keys.
    #[error("the document has {found} permanent keys: expected at most {TXN_WRITES_MAX}, which one transaction takes")]
    Many {
        /// The number of its permanent keys.
        found: usize,
    },
    /// The document has nothing that is imported.
    #[error("the document has no permanent key, so there is nothing to import: members write the others themselves")]
    Nothing,
    /// The store has keys of the cluster.
    #[error(
        "the store already has {found} keys of cluster {cluster} ({names}), and nothing was written: expected none; \
         --replace writes over them if no member lives there"
    )]
    Taken {
        /// The cluster.
        cluster: String,
        /// The number of keys.
        found: usize,
        /// Some of them.
        names: String,
    },
    /// Members use the store.
    #[error(
        "members of cluster {cluster} live in the store ({names}), and nothing was written: expected none; stop them, \
         and try again when their leases have ended"
    )]
    Alive {
        /// The cluster.
        cluster: String,
        /// Some of them.
        names: String,
    },
    /// The store changed between the look at it and the transaction.
    #[error("another process has just changed the cluster in the store, and nothing was written: try again")]
    Changed,
}
