//! Reads weights into memory in a thread next to the compute thread: those that a stage is about to hold, or might be
//! given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schema::LayerRange;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::done::Done;
use crate::runner::Loader;

/// The number of the newest order. A reader with an older number stops by itself.
pub(super) struct ReadAhead {
    loader: Arc<dyn Loader>,
    done: mpsc::Sender<Done>,
    newest: Arc<AtomicU64>,
}

// === impl ReadAhead ===

impl ReadAhead {
    pub(super) fn new(loader: Arc<dyn Loader>, done: mpsc::Sender<Done>) -> Self {
        Self { loader, done, newest: Arc::default() }
    }

    /// Begins to read `ranges` in their order, each fetched first if it is `claimed`, and ends an earlier read. If no
    /// thread can be started, nothing is read and the outcome is reported all the same.
    pub(super) fn start(&self, number: u64, ranges: Vec<LayerRange>, bytes_max: u64, claimed: bool) {
        self.newest.store(number, Ordering::Relaxed);
        let (loader, done, newest) = (self.loader.clone(), self.done.clone(), self.newest.clone());
        let read = move || {
            let wanted = || newest.load(Ordering::Relaxed) == number;
            let mut left = bytes_max;
            for layers in ranges {
                if claimed {
                    loader.fetch(layers, &wanted);
                }
                let bytes = loader.read_ahead(layers, left, &wanted);
                debug!(%layers, bytes, "read ahead");
                left = left.saturating_sub(bytes);
            }
            // After the stage has ended there is no receiver.
            let _ = done.blocking_send(Done::ReadAhead { number });
        };
        if let Err(error) = std::thread::Builder::new().name("read-ahead".to_owned()).spawn(read) {
            warn!(%error, "cannot read ahead");
            let _ = self.done.try_send(Done::ReadAhead { number });
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.newest.store(u64::MAX, Ordering::Relaxed);
    }
}
