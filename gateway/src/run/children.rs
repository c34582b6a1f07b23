//! The stage processes that `baton up` starts: child processes that run `baton stage`.
//!
//! Each child's standard input is a pipe held here. If this process is killed, the pipe closes, and the child ends by
//! itself.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use schema::StageName;
use tokio::process::{Child, Command};

use super::RunError;

/// Time for children to end before they are killed.
const CHILD_STOP_TIMEOUT: Duration = Duration::from_millis(800);
/// Interval of the checks for a child that has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The running children.
pub(super) struct Children {
    running: Vec<(StageName, Child)>,
}

// === impl Children ===

impl Children {
    /// Starts one child for each of `stages` with its arguments. Sockets and scratch files go into `folder`.
    pub(super) fn start(
        stages: impl Iterator<Item = (StageName, Vec<OsString>)>,
        environment: &[(&'static str, String)],
        folder: &Path,
    ) -> Result<Self, RunError> {
        let cause = |cause| RunError::Io { doing: "start a stage process", cause };
        let program = std::env::current_exe().map_err(cause)?;
        let mut running = Vec::new();
        for (name, arguments) in stages {
            let mut command = Command::new(&program);
            command.args(arguments);
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            command.env("XDG_RUNTIME_DIR", folder).env("TMPDIR", folder);
            // The keys of the HTTP server are of no use to a stage.
            command.env_remove("BATON_API_KEY");
            command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
            // The child gets a process group of its own, so Ctrl-C reaches this process only, which then stops the
            // children in order.
            command.process_group(0);
            running.push((name, command.spawn().map_err(cause)?));
        }
        Ok(Self { running })
    }

    /// The names and process ids of the running children.
    pub(super) fn processes(&self) -> impl Iterator<Item = (&StageName, Option<u32>)> {
        self.running.iter().map(|(name, child)| (name, child.id()))
    }

    /// Waits for the next child that ends by itself. Never resolves if there is none. Cancel-safe.
    pub(super) async fn next_exit(&mut self) -> (StageName, ExitStatus) {
        loop {
            for index in 0..self.running.len() {
                if let Ok(Some(status)) = self.running[index].1.try_wait() {
                    return (self.running.swap_remove(index).0, status);
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// True if no child is left.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Asks all children to end, and waits until they have. Those that do not end in time are killed.
    pub(super) async fn stop(&mut self) {
        // The end of its standard input makes a child end without handing its layers over, because no stage is to stay.
        self.running.iter_mut().for_each(|(_, child)| drop(child.stdin.take()));
        let all_ended = async {
            for (_, child) in &mut self.running {
                let _ = child.wait().await;
            }
        };
        if tokio::time::timeout(CHILD_STOP_TIMEOUT, all_ended).await.is_err() {
            for (_, child) in &mut self.running {
                let _ = child.kill().await;
            }
        }
        self.running.clear();
    }
}
