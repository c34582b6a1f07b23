//! Measures this process's memory in a thread of its own: the system counts page by page, which takes milliseconds for
//! each gigabyte.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};

use schema::record::MemoryUse;
use tokio::sync::watch;

use crate::limits::REPORT_EVERY;
use crate::runner::Loader;

/// The newest measurement. Dropping it ends the thread that measures.
pub(super) struct MemorySampler {
    newest: watch::Receiver<MemoryUse>,
    _thread: SyncSender<()>,
}

// === impl MemorySampler ===

impl MemorySampler {
    /// Measures now, and then for every report.
    pub(super) fn start(loader: Arc<dyn Loader>) -> std::io::Result<Self> {
        let (ending, ended) = sync_channel(0);
        let (publish, newest) = watch::channel(MemoryUse::default());
        let sample = move || {
            loop {
                publish.send_replace(loader.memory());
                if ended.recv_timeout(REPORT_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("memory_sampler".to_owned()).spawn(sample)?;
        Ok(Self { newest, _thread: ending })
    }

    /// The newest measurement, at most one report interval old. Zeros before the first one.
    pub(super) fn memory(&self) -> MemoryUse {
        self.newest.borrow().clone()
    }
}
