//! When to stop: Ctrl-C, SIGTERM, or the end of the process that started this one.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::RunError;

/// Tells everyone who asks that it is time to stop. The flag is for blocking work.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    told: Arc<watch::Sender<bool>>,
    flag: Arc<AtomicBool>,
}

// === impl Stop ===

impl Stop {
    /// Listens for signals from now on; with `follow_stdin` also for the end of standard input, which a parent holds.
    pub(super) fn listen(follow_stdin: bool) -> Result<Self, RunError> {
        let cause = |cause| RunError::Io { doing: "listen for signals", cause };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cause)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cause)?;
        let stop = Self { told: Arc::new(watch::Sender::new(false)), flag: Arc::default() };
        let heard = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = stdin_closed(), if follow_stdin => {}
            }
            heard.now();
        });
        Ok(stop)
    }

    /// It is time to stop.
    pub(super) fn now(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.told.send_replace(true);
    }

    /// Resolves when it is time to stop.
    pub(super) async fn told(&self) {
        // The sender is held here, so the wait ends only when it is time.
        drop(self.told.subscribe().wait_for(|told| *told).await);
    }

    /// The same for work that cannot wait.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }
}

/// Resolves when standard input ends. The thread that reads it is never waited for.
async fn stdin_closed() {
    let (ended, end) = oneshot::channel();
    let read = move || {
        let mut ignored = [0; 64];
        while std::io::stdin().read(&mut ignored).is_ok_and(|read| read > 0) {}
        let _ = ended.send(());
    };
    if std::thread::Builder::new().name("stdin".to_owned()).spawn(read).is_ok() {
        drop(end.await);
    } else {
        std::future::pending::<()>().await;
    }
}
