//! This process's memory, measured beside all that is in a hurry: the system counts page by page, which takes milliseconds for
//! each gigabyte.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};

use schema::record::MemoryUse;
use tokio::sync::watch;

use crate::limits::REPORT_EVERY;
use crate::runner::Loader;

/// What was found last. Dropping it ends the thread that looks.
pub(super) struct MemorySampler {
    newest: watch::Receiver<MemoryUse>,
    _thread: SyncSender<()>,
}

// === impl MemorySampler ===

impl MemorySampler {
    /// Measures now, and then for every report.
    pub(super) fn start(loader: Arc<dyn Loader>) -> std::io::Result<Self> {
        let (ending, ended) = sync_channel(0);
        let (found, newest) = watch::channel(MemoryUse::default());
        let look = move || {
            loop {
                found.send_replace(loader.memory());
                if ended.recv_timeout(REPORT_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("memory_sampler".to_owned()).spawn(look)?;
        Ok(Self { newest, _thread: ending })
    }

    /// What this process used when it was looked at last, no longer ago than a report; zeros before the first time.
    pub(super) fn memory(&self) -> MemoryUse {
        *self.newest.borrow()
    }
}
