//! One row of the table: a mistake, the expected output of each tool, and the output that was found. This module knows
//! no particular mistake.

use std::any::Any;
use std::time::{Duration, Instant};

use super::fixture::{ClusterRef, Fixture};
use super::process::Process;

/// Longest wait until a process that cannot go on ends. It is long because a process waits for a name that a crashed
/// one may still hold.
const ENDS_WITHIN: Duration = Duration::from_secs(12);
/// Longest wait until the output shows a mistake, on a busy machine.
const SHOWS_WITHIN: Duration = Duration::from_secs(25);
/// Pause between two checks of the output.
const CHECK_INTERVAL: Duration = Duration::from_millis(150);

/// A mistake and the expected output.
pub(crate) struct Case {
    /// The row's name in the table.
    pub(crate) name: &'static str,
    /// Makes the mistake. The error is the reason for which it cannot be made here.
    pub(crate) make: fn(&mut Fixture) -> Result<Mistake, String>,
    pub(crate) expected: Expected,
}

/// Fragments of the expected output.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    /// Status and a part of the body of `/health`.
    pub(crate) health: (u16, &'static str),
    /// A part of the output of `baton status`.
    pub(crate) status: &'static str,
    /// Exit status and a part of the output of `baton doctor`.
    pub(crate) doctor: (i32, &'static str),
    /// Exit status of the wrong process. `None` if it keeps running.
    pub(crate) exit: Option<i32>,
    /// A part of the last line of the wrong process.
    pub(crate) last_line: &'static str,
}

/// The output for a cluster that serves, and a wrong process that keeps running and needs to print nothing.
pub(crate) const HEALTHY: Expected = Expected {
    health: (200, r#""status":"ok""#),
    status: "serving: every layer is held exactly once",
    doctor: (0, "every stage worked for it"),
    exit: None,
    last_line: "",
};

/// A mistake that has been made, and the function that reverts it.
pub(crate) struct Mistake {
    process: Option<Process>,
    /// The cluster in which the mistake shows. `None` stands for the cluster that all rows share.
    cluster_ref: Option<ClusterRef>,
    undo: Option<fn(&mut Fixture)>,
    /// Values that live as long as the mistake. They are dropped in order.
    held: Vec<Box<dyn Any>>,
}

/// The result of one row.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) name: &'static str,
    pub(crate) health: String,
    pub(crate) status: String,
    pub(crate) doctor: String,
    pub(crate) exit: String,
    pub(crate) last_line: String,
    pub(crate) took: Duration,
    /// The differences from the expected output.
    pub(crate) differs: Vec<String>,
    /// The reason, if the row was skipped.
    pub(crate) skipped: Option<String>,
}

// === impl Case ===

impl Case {
    /// A process that ends with `exit` and with `last_line` in its last line. The rest of the cluster is not affected.
    pub(crate) fn ends(
        name: &'static str,
        exit: i32,
        last_line: &'static str,
        make: fn(&mut Fixture) -> Result<Mistake, String>,
    ) -> Self {
        Self { name, make, expected: Expected { exit: Some(exit), last_line, ..HEALTHY } }
    }

    /// A mistake that ends no process.
    pub(crate) fn stays(
        name: &'static str,
        expected: Expected,
        make: fn(&mut Fixture) -> Result<Mistake, String>,
    ) -> Self {
        Self { name, make, expected }
    }

    /// Makes the mistake, checks the output, reverts the mistake, and checks that the shared cluster still generates
    /// the same tokens.
    pub(crate) fn run(&self, fixture: &mut Fixture) -> Found {
        let started = Instant::now();
        let mut mistake = match (self.make)(fixture) {
            Ok(mistake) => mistake,
            Err(why) => return Found { name: self.name, skipped: Some(why), ..Found::default() },
        };
        let mut found = Found { name: self.name, ..Found::default() };
        self.await_end(&mut mistake, &mut found);
        self.check(fixture, &mut mistake, &mut found);
        if found.last_line.contains("panicked") || mistake.process.as_ref().is_some_and(Process::panicked) {
            found.differs.push("it panicked".to_owned());
        }
        if let Some(difference) = fixture.answers_otherwise() {
            found.differs.push(difference);
        }
        let undo = mistake.undo;
        drop(mistake);
        if let Some(undo) = undo {
            undo(fixture);
        }
        found.took = started.elapsed();
        found
    }

    fn await_end(&self, mistake: &mut Mistake, found: &mut Found) {
        let (Some(process), Some(expected)) = (&mut mistake.process, self.expected.exit) else { return };
        let ended = process.ended_within(ENDS_WITHIN);
        if ended != Some(expected) {
            found.differs.push(format!("exit status: expected {expected}, found {}", shown(ended)));
        }
    }

    /// Checks the output again and again until all is as expected or the time is up.
    fn check(&self, fixture: &Fixture, mistake: &mut Mistake, found: &mut Found) {
        let before = std::mem::take(&mut found.differs);
        let started = Instant::now();
        loop {
            found.differs.clone_from(&before);
            self.check_once(fixture, mistake, found);
            let is_over =
                found.differs.iter().all(|differs| differs.starts_with("last line")) && self.expected.exit.is_some();
            if found.differs.len() == before.len() || is_over || started.elapsed() > SHOWS_WITHIN {
                return;
            }
            std::thread::sleep(CHECK_INTERVAL);
        }
    }

    fn check_once(&self, fixture: &Fixture, mistake: &mut Mistake, found: &mut Found) {
        let Expected { health, status, doctor, exit, last_line } = self.expected;
        let own = fixture.cluster_ref();
        let cluster_ref = mistake.cluster_ref.as_ref().unwrap_or(&own);
        if let Some(process) = &mut mistake.process {
            let ended = process.ended_within(Duration::ZERO);
            found.exit = shown(ended);
            found.last_line = process.last_line();
            if exit.is_none() && ended.is_some() {
                found.differs.push(format!("it ended with {}, though it was to stay", found.exit));
            }
            if !process.has_logged(last_line) {
                found.differs.push(format!("last line: expected {last_line:?}"));
            }
        }
        let (code, body) = cluster_ref.health();
        found.health = format!("{code} {body}");
        if code != health.0 || !body.contains(health.1) {
            found.differs.push(format!("/health: expected {} {:?}", health.0, health.1));
            return;
        }
        let (_, shown) = fixture.ask("status", cluster_ref);
        if shown.contains(status) {
            found.status = line_with(&shown, status);
        } else {
            found.status = shown.lines().take(12).collect::<Vec<_>>().join(" / ");
            found.differs.push(format!("status: expected {status:?}"));
            return;
        }
        let (code, output) = fixture.ask("doctor", cluster_ref);
        found.doctor = format!("{code} {}", line_with(&output, doctor.1));
        if code != doctor.0 || !output.contains(doctor.1) {
            found.doctor = format!("{code} {}", output.lines().take(6).collect::<Vec<_>>().join(" / "));
            found.differs.push(format!("doctor: expected {} {:?}", doctor.0, doctor.1));
        }
    }
}

// === impl Mistake ===

impl Mistake {
    /// A mistake without a process of its own.
    pub(crate) fn without_process() -> Self {
        Self { process: None, cluster_ref: None, undo: None, held: Vec::new() }
    }

    pub(crate) fn of(process: Process) -> Self {
        Self { process: Some(process), ..Self::without_process() }
    }

    /// The mistake shows in this cluster.
    pub(crate) fn at(self, cluster_ref: ClusterRef) -> Self {
        Self { cluster_ref: Some(cluster_ref), ..self }
    }

    /// `undo` reverts the mistake, after its process has been stopped.
    pub(crate) fn undone_by(self, undo: fn(&mut Fixture)) -> Self {
        Self { undo: Some(undo), ..self }
    }

    /// The mistake needs `held` as long as it lasts.
    pub(crate) fn holding(mut self, held: impl Any) -> Self {
        self.held.push(Box::new(held));
        self
    }
}

fn shown(exit: Option<i32>) -> String {
    exit.map_or("stays".to_owned(), |exit| exit.to_string())
}

fn line_with(text: &str, fragment: &str) -> String {
    let first = text.lines().find(|line| line.contains(fragment)).or(text.lines().next());
    first.unwrap_or_default().trim().to_owned()
}
