//! The `baton up` processes of this user on this machine: each keeps a record in a file and a lock on it, so whoever
//! reads the record knows that its process lives. The operating system gives the lock back however the process ends.

mod folder;
mod limits;
mod promises;
mod record;

pub use folder::RunningFolder;
pub(crate) use limits::{POLL_INTERVAL, STOP_WAIT_MAX};
pub use promises::{Demand, Grant, MachineMemory, MemoryPromised, Promise};
pub use record::{RunningUp, UpLock, UpRecord};
