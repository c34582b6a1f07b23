//! Reading weights into memory beside the thread that computes: what a stage is about to hold, or might be given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schema::LayerRange;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::compute::Done;
use crate::runner::Loader;

/// The newest order; a reader with an older number stops by itself.
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

    /// Begins to read `ranges`, in this order, and ends what was begun before. Where no thread can be started nothing is read,
    /// and all the rest is as if it were.
    pub(super) fn start(&self, number: u64, ranges: Vec<LayerRange>, bytes_max: u64) {
        self.newest.store(number, Ordering::Relaxed);
        let (loader, done, newest) = (self.loader.clone(), self.done.clone(), self.newest.clone());
        let read = move || {
            let wanted = || newest.load(Ordering::Relaxed) == number;
            let mut left = bytes_max;
            for layers in ranges {
                let bytes = loader.read_ahead(layers, left, &wanted);
                debug!(%layers, bytes, "read ahead");
                left = left.saturating_sub(bytes);
            }
            // Nobody listens any more when the stage has ended.
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
