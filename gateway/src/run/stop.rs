//! When to stop: Ctrl-C, SIGTERM, or the end of the process that started this one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::RunError;

/// Tells everyone who asks that it is time to stop. The flag is for blocking work.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    told: watch::Receiver<bool>,
    flag: Arc<AtomicBool>,
}

// === impl Stop ===

impl Stop {
    /// Listens for signals from now on; with `follow_stdin` also for the end of standard input, which a parent holds.
    pub(super) fn listen(follow_stdin: bool) -> Result<Self, RunError> {
        let cause = |cause| RunError::Io { doing: "listen for signals", cause };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cause)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cause)?;
        let (tell, told) = watch::channel(false);
        let flag = Arc::new(AtomicBool::new(false));
        let raised = flag.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = stdin_closed(), if follow_stdin => {}
            }
            raised.store(true, Ordering::Relaxed);
            tell.send_replace(true);
            // The sender stays, so that a late listener sees the value and not a closed channel.
            tell.closed().await;
        });
        Ok(Self { told, flag })
    }

    /// Resolves when it is time to stop.
    pub(super) async fn told(&self) {
        let mut told = self.told.clone();
        // An error means that the listener is gone with its runtime: then it is time, too.
        drop(told.wait_for(|told| *told).await);
    }

    /// The same for work that cannot wait.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }
}

async fn stdin_closed() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while stdin.read(&mut ignored).await.is_ok_and(|read| read > 0) {}
}
