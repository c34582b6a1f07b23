//! The order to stop: Ctrl-C, SIGTERM, or the end of the process that started this one. A second signal ends the
//! process at once, as a crash would. Other processes notice that and take over.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing::warn;

use super::RunError;

/// The order to stop, shared by all tasks that wait for it. The flag is for blocking work.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    requested: Arc<watch::Sender<bool>>,
    stdin_closed: Arc<watch::Sender<bool>>,
    flag: Arc<AtomicBool>,
}

/// Base of the exit code that a shell shows for a process ended by a signal. The signal's number is added to it.
const ENDED_BY_SIGNAL: i32 = 128;

// === impl Stop ===

impl Stop {
    /// Listens for signals from now on. With `follow_stdin`, also listens for the end of standard input, whose other
    /// end the parent process holds.
    pub(super) fn listen(follow_stdin: bool) -> Result<Self, RunError> {
        let cause = |cause| RunError::Io { doing: "listen for signals", cause };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cause)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cause)?;
        let stop = Self { requested: Arc::default(), stdin_closed: Arc::default(), flag: Arc::default() };
        let shared = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = read_stdin_to_end(), if follow_stdin => drop(shared.stdin_closed.send_replace(true)),
            }
            shared.request();
            let signal = tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
            };
            end_at_once(signal);
        });
        Ok(stop)
    }

    /// Gives the order to stop.
    pub(super) fn request(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.requested.send_replace(true);
    }

    /// True once the order to stop has been given.
    pub(super) fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Resolves when the order to stop has been given.
    pub(super) async fn requested(&self) {
        // `self` holds the sender, so the wait ends only with the order.
        drop(self.requested.subscribe().wait_for(|requested| *requested).await);
    }

    /// Resolves when the process that started this one has ended, or closes the pipe to end it at once.
    pub(super) async fn stdin_closed(&self) {
        drop(self.stdin_closed.subscribe().wait_for(|closed| *closed).await);
    }

    /// The order to stop as a flag, for work that cannot await it.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        self.flag.clone()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a second signal asks for a crash; children end with their standard input"
)]
fn end_at_once(signal: SignalKind) -> ! {
    warn!("asked to stop a second time: ending at once");
    std::process::exit(ENDED_BY_SIGNAL + signal.as_raw_value())
}

/// Resolves when standard input ends. Nothing waits for the thread that reads it.
async fn read_stdin_to_end() {
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
