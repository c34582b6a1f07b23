//! The bounds of the records of running processes.

use std::time::Duration;

/// Most bytes of a record: names, and the address of a store.
pub(super) const RECORD_BYTES_MAX: u64 = 16 << 10;
/// Files of the folder that are looked at. A process has one, and those of dead processes are deleted.
pub(super) const FILES_MAX: usize = 1024;

/// Longest wait for the lock under which processes promise memory: it is held for as long as it takes to read a folder.
pub(super) const PROMISE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest wait for a process to end after it was told to: it ends in under two seconds, unless the machine is busy.
pub(crate) const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
/// Interval of the looks whether it has.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(20);
