//! The bounds of the store, each with its unit and its reason.

use std::time::Duration;

/// Largest transaction, in bytes of keys and values: etcd's own default, so that nothing works in memory and fails on a
/// real etcd.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;

/// Most operations in one transaction, and most compares: etcd's own default.
pub const TXN_OPS_MAX: usize = 128;

/// Most nested transactions in one, into which the client of a real etcd puts writes that are too many for one level.
pub const TXN_GROUPS_MAX: usize = 32;

/// Most writes in each of them: etcd counts them together with the nested transactions.
pub const TXN_GROUP_WRITES_MAX: usize = TXN_OPS_MAX - TXN_GROUPS_MAX;

/// Most writes of one transaction at a real etcd. The embedded store takes [`TXN_OPS_MAX`].
pub const TXN_WRITES_MAX: usize = TXN_GROUPS_MAX * TXN_GROUP_WRITES_MAX;

/// Longest key that the in-memory store takes, in bytes: baton's are under 200.
pub const KEY_BYTES_MAX: usize = 4096;

/// Most keys that the in-memory store holds: a cluster of a hundred stages needs a few hundred.
pub const KEYS_MAX: usize = 16_384;

/// Most bytes of keys and values that the in-memory store holds. Every key that a cluster needs has room a hundred
/// times over, and a reply with everything in the store is still harmless.
pub const STORE_BYTES_MAX: usize = 8 << 20;

/// Most past changes kept for watches that lag: hours at three changes a second, and more than one commit can make.
pub const HISTORY_EVENTS_MAX: usize = 4 * KEYS_MAX;

/// Most bytes of past changes kept: the same order as the store itself.
pub const HISTORY_BYTES_MAX: usize = 16 << 20;

/// Most leases that the in-memory store grants at a time: one or two per process, and those of etcdctl.
pub const LEASES_MAX: usize = 1024;

/// Shortest time to live of a lease: etcd's floor at its default election timeout.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(2);

/// Longest time to live of a lease, in seconds: etcd's own bound.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// Least time that a lease has left when the embedded store is started again from its file: its holder, which asks anew
/// every 150 ms and waits up to seconds for a connection, finds the store within it.
pub const LEASE_RESTART_GRACE: Duration = Duration::from_secs(10);

/// Pause after the embedded store's file took no write. Each try opens the file again.
pub const DISK_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Memory for pages of the embedded store's file, in bytes. All keys are in memory anyway.
pub const DISK_CACHE_BYTES: usize = 4 << 20;

/// A batch of a watch with this many changes is closed at the end of the commit, so a watch that lags gets its history
/// in portions.
pub const WATCH_BATCH_EVENTS_MAX: usize = 1000;

/// The same in bytes. A gRPC client takes 4 MiB at a time unless configured otherwise.
pub const WATCH_BATCH_BYTES_MAX: usize = 1 << 20;
