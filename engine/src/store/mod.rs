//! The coordination store: four operations in etcd's own model, and the three types that offer them.
//!
//! Keys are text, values are bytes. The names of keys and the meaning of values are not known here.

mod disk;
mod error;
mod etcd;
mod host;
mod lease;
pub mod limits;
mod memory;
mod model;
mod server;
mod state;
#[cfg(test)]
pub(crate) mod timed;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use disk::DiskError;
pub use error::StoreError;
pub use etcd::{EtcdAccess, EtcdLogin, EtcdStore, EtcdTls};
pub use lease::{LeaseGrant, LeaseId};
pub use memory::MemoryStore;
pub use model::{Change, Committed, Compare, Entry, Revision, Snapshot, Txn, Write};
pub use server::{EmbeddedServer, EmbeddedService, StoreProxy, accept};
pub use watch::Watch;

/// A store shared by the tasks of a process.
pub type SharedStore = Arc<dyn Store>;

/// A small, consistent, watchable map of keys to values.
///
/// # Contract
///
/// Every implementation keeps these clauses. `tests/store_contract.rs` has one test for each.
///
/// Reading
/// 1. A snapshot holds every entry whose key starts with the prefix, and no other, in byte order of the keys. The empty
///    prefix is every key.
/// 2. A commit that was answered is in every snapshot taken after the answer.
///
/// Committing
/// 3. If every compare holds, all writes are applied at one revision. If any fails, nothing is written. A compare of a
///    prefix is about all keys that start with it.
/// 4. Revisions grow: a commit that changes something gets one greater than all before it. A commit that changes
///    nothing is answered with the revision it saw.
/// 5. Of commits that compare one key against the same past, exactly one is applied.
/// 6. A key may be written only once in a transaction. Otherwise the whole is [`StoreError::Invalid`] and nothing is
///    written.
/// 7. A transaction larger than [`limits::REQUEST_BYTES_MAX`] is refused and nothing is written.
/// 8. A put under a lease the store does not know is [`StoreError::LeaseGone`] and nothing is written.
/// 9. A put without a lease takes the key off the lease it was under.
///
/// Watching
/// 10. A watch reports every change to keys under its prefix made after the given revision, in order and once, also
///     those made before the watch began.
/// 11. A batch is never empty and never splits a commit.
/// 12. Dropping the future of [`Watch::next`] loses no change.
/// 13. A watch from a revision whose history is gone ends with [`StoreError::Compacted`]. Reading again and watching
///     from that snapshot's revision works. An ended watch stays ended.
///
/// Leases
/// 14. A lease lives on beyond its time to live for as long as its grant is held, and so do the keys under it.
/// 15. Revoking or dropping the grant deletes the keys under it, and watches see that.
/// 16. If the holder dies without revoking the lease, the keys are deleted once the time to live has passed.
/// 17. A holder whose lease was taken away learns it from [`LeaseGrant::lost`], and a lost lease stays lost.
/// 18. A holder that cannot reach the store keeps its lease. Only an answer of the store ends it, because a store that
///     comes back may have kept the lease, and the keys under it, far beyond the time to live (etcd gives each lease
///     all its time again when it starts and when its leader changes).
/// 19. Times to live are rounded up to whole seconds and to at least [`limits::LEASE_TTL_MIN`].
///
/// # Errors
///
/// [`StoreError::Unavailable`] from `commit` means that the commit may or may not have been applied. Read again.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads all entries whose keys start with `prefix`.
    async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError>;

    /// Applies the writes of `txn` if its compares hold.
    async fn commit(&self, txn: Txn) -> Result<Committed, StoreError>;

    /// Follows the changes under `prefix` made after the revision `after`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;

    /// Takes a lease and keeps it alive until the grant is dropped.
    async fn lease(&self, ttl: Duration) -> Result<LeaseGrant, StoreError>;

    /// The alarms that the store raises while it answers, as sentences for people: that it has no room and takes no
    /// writes.
    async fn alarms(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }
}
