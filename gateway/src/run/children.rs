//! The stage processes that `baton up` starts: child processes that run `baton stage`, and are started again when a
//! signal has ended them.
//!
//! Each child's standard input is a pipe held here. If this process is killed, the pipe closes, and the child ends by
//! itself.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use schema::{Deployment, StageName};
use tokio::process::{Child, Command};

use super::RunError;

/// Time for children to end before they are killed.
const CHILD_STOP_TIMEOUT: Duration = Duration::from_millis(800);
/// Interval of the checks for a child that has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Time after which a child is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// The children, running and about to run again.
pub(super) struct Children {
    recipe: Recipe,
    running: Vec<(ChildStage, Child)>,
    /// Those that are started again at these times.
    due: Vec<(Instant, ChildStage)>,
    restarts: bool,
}

/// One stage: its deployment, its name, and the arguments of its process.
struct ChildStage {
    deployment: Deployment,
    name: StageName,
    arguments: Vec<OsString>,
}

/// The parts of a child's command that all children share.
struct Recipe {
    program: PathBuf,
    environment: Vec<(&'static str, String)>,
    folder: PathBuf,
}

/// A change of a child that nobody asked for.
pub(super) enum ChildEvent {
    /// Its process has ended by itself, or by a signal.
    Ended { stage: StageName, status: ExitStatus, restarts: bool },
    /// It was started again.
    Started { stage: StageName, pid: u32 },
    /// It was to be started again, and could not be.
    NotStarted { stage: StageName, cause: io::Error },
}

fn not_started(cause: io::Error) -> RunError {
    RunError::Io { doing: "start a stage process", cause }
}

// === impl Children ===

impl Children {
    /// No children yet. Their sockets and scratch files go into `folder`. With `restarts`, a child that a signal ends
    /// is started again.
    pub(super) fn new(
        environment: Vec<(&'static str, String)>,
        folder: &Path,
        restarts: bool,
    ) -> Result<Self, RunError> {
        let program = std::env::current_exe().map_err(not_started)?;
        let recipe = Recipe { program, environment, folder: folder.to_owned() };
        Ok(Self { recipe, running: Vec::new(), due: Vec::new(), restarts })
    }

    /// Starts one child of `deployment` for each of `stages` with its arguments.
    pub(super) fn add(
        &mut self,
        deployment: Deployment,
        stages: impl Iterator<Item = (StageName, Vec<OsString>)>,
    ) -> Result<(), RunError> {
        let start = |(name, arguments)| {
            let stage = ChildStage { deployment, name, arguments };
            self.recipe.spawn(&stage).map(|child| (stage, child)).map_err(not_started)
        };
        let started = stages.map(start).collect::<Result<Vec<_>, _>>()?;
        self.running.extend(started);
        Ok(())
    }

    /// True if a child of `deployment` runs, or will be started again.
    pub(super) fn has(&self, deployment: Deployment) -> bool {
        let stages = self.running.iter().map(|(stage, _)| stage).chain(self.due.iter().map(|(_, stage)| stage));
        stages.into_iter().any(|stage| stage.deployment == deployment)
    }

    /// The names and process ids of the running children.
    pub(super) fn processes(&self) -> impl Iterator<Item = (&StageName, Option<u32>)> {
        self.running.iter().map(|(stage, child)| (&stage.name, child.id()))
    }

    /// Waits for the next child that ends by itself or is started again. Never resolves if there is none. Cancel-safe.
    pub(super) async fn next_event(&mut self) -> ChildEvent {
        loop {
            if let Some(event) = self.reap().or_else(|| self.start_due()) {
                return event;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Takes a child that has ended out of the running ones.
    fn reap(&mut self) -> Option<ChildEvent> {
        let ended =
            |(at, (_, child)): (usize, &mut (ChildStage, Child))| child.try_wait().ok()?.map(|status| (at, status));
        let (at, status) = self.running.iter_mut().enumerate().find_map(ended)?;
        let (stage, _) = self.running.swap_remove(at);
        // A child that ended by itself has said why, and would do so again.
        let restarts = self.restarts && status.signal().is_some();
        let name = stage.name.clone();
        if restarts {
            self.due.push((Instant::now() + RESTART_DELAY, stage));
        }
        Some(ChildEvent::Ended { stage: name, status, restarts })
    }

    /// Starts a child again whose time has come.
    fn start_due(&mut self) -> Option<ChildEvent> {
        let at = self.due.iter().position(|(due, _)| *due <= Instant::now())?;
        let (_, stage) = self.due.swap_remove(at);
        let name = stage.name.clone();
        Some(match self.recipe.spawn(&stage) {
            Ok(child) => {
                let pid = child.id().unwrap_or_default();
                self.running.push((stage, child));
                ChildEvent::Started { stage: name, pid }
            }
            Err(cause) => ChildEvent::NotStarted { stage: name, cause },
        })
    }

    /// True if no child is left, and none will be started again.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.due.is_empty()
    }

    /// Asks all children to end, and waits until they have. Those that do not end in time are killed.
    pub(super) async fn stop(&mut self) {
        self.due.clear();
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

// === impl Recipe ===

impl Recipe {
    fn spawn(&self, stage: &ChildStage) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(&stage.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("XDG_RUNTIME_DIR", &self.folder).env("TMPDIR", &self.folder);
        // The keys of the HTTP server are of no use to a stage.
        command.env_remove("BATON_API_KEY");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        // The child gets a process group of its own, so Ctrl-C reaches this process only, which then stops the
        // children in order.
        command.process_group(0);
        command.spawn()
    }
}

// === impl ChildEvent ===

impl fmt::Display for ChildEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { stage, status, restarts: true } => {
                write!(f, "stage {stage} has ended: {status}; it is started again")
            }
            Self::Ended { stage, status, restarts: false } => write!(f, "stage {stage} has ended: {status}"),
            Self::Started { stage, pid } => write!(f, "stage {stage} is process {pid} now"),
            Self::NotStarted { stage, cause } => write!(f, "stage {stage} cannot be started again: {cause}"),
        }
    }
}
