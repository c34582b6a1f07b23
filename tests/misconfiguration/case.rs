//! One row of the table: a mistake, what is to be seen of it where people look, and what was seen of it. Knows no
//! particular mistake.

use std::any::Any;
use std::time::{Duration, Instant};

use super::fixture::{Fixture, Site};
use super::process::Process;

/// Until a process that cannot go on has ended; names are waited for longer, as a crashed process may still hold one.
const ENDS_WITHIN: Duration = Duration::from_secs(12);
/// Until a mistake shows wherever it is to show, on a busy machine.
const SHOWS_WITHIN: Duration = Duration::from_secs(25);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// A mistake and what is to be seen of it.
pub(crate) struct Case {
    /// Said in the table.
    pub(crate) name: &'static str,
    /// Makes the mistake, or says why it cannot be made here.
    pub(crate) make: fn(&mut Fixture) -> Result<Mistake, String>,
    pub(crate) expected: Expected,
}

/// Fragments of what is to be seen.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    /// Status and a part of the body of `/health`.
    pub(crate) health: (u16, &'static str),
    /// A part of what `baton status` prints.
    pub(crate) status: &'static str,
    /// Exit status and a part of what `baton doctor` prints.
    pub(crate) doctor: (i32, &'static str),
    /// Exit status of the process that is wrong; none where it stays.
    pub(crate) exit: Option<i32>,
    /// A part of its last line.
    pub(crate) says: &'static str,
}

/// A cluster that serves, beside a process that says nothing.
pub(crate) const WELL: Expected = Expected {
    health: (200, r#""status":"ok""#),
    status: "serving: every layer is held exactly once",
    doctor: (0, "every stage worked for it"),
    exit: None,
    says: "",
};

/// A mistake that has been made, and how it is taken back.
pub(crate) struct Mistake {
    process: Option<Process>,
    /// The cluster to look at: the one that others share unless said otherwise.
    site: Option<Site>,
    undo: Option<fn(&mut Fixture)>,
    /// Things that last as long as the mistake, dropped in order.
    held: Vec<Box<dyn Any>>,
}

/// One row as it was found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) name: &'static str,
    pub(crate) health: String,
    pub(crate) status: String,
    pub(crate) doctor: String,
    pub(crate) exit: String,
    pub(crate) says: String,
    pub(crate) took: Duration,
    /// The differences from what was expected.
    pub(crate) differs: Vec<String>,
    /// Why the row was left out.
    pub(crate) left_out: Option<String>,
}

// === impl Case ===

impl Case {
    /// A process that ends with `exit` and these last words; nobody else notices.
    pub(crate) fn ends(
        name: &'static str,
        exit: i32,
        says: &'static str,
        make: fn(&mut Fixture) -> Result<Mistake, String>,
    ) -> Self {
        Self { name, make, expected: Expected { exit: Some(exit), says, ..WELL } }
    }

    /// A mistake that ends no process.
    pub(crate) fn stays(
        name: &'static str,
        expected: Expected,
        make: fn(&mut Fixture) -> Result<Mistake, String>,
    ) -> Self {
        Self { name, make, expected }
    }

    /// Makes the mistake, looks, takes it back, and asks the others for the tokens they gave before.
    pub(crate) fn hold(&self, fixture: &mut Fixture) -> Found {
        let started = Instant::now();
        let mut mistake = match (self.make)(fixture) {
            Ok(mistake) => mistake,
            Err(why) => return Found { name: self.name, left_out: Some(why), ..Found::default() },
        };
        let mut found = Found { name: self.name, ..Found::default() };
        self.await_end(&mut mistake, &mut found);
        self.look(fixture, &mut mistake, &mut found);
        if found.says.contains("panicked") || mistake.process.as_ref().is_some_and(Process::panicked) {
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

    /// Looks until all is as expected, or for as long as it may take.
    fn look(&self, fixture: &Fixture, mistake: &mut Mistake, found: &mut Found) {
        let before = std::mem::take(&mut found.differs);
        let started = Instant::now();
        loop {
            found.differs.clone_from(&before);
            self.look_once(fixture, mistake, found);
            let is_over =
                found.differs.iter().all(|differs| differs.starts_with("last line")) && self.expected.exit.is_some();
            if found.differs.len() == before.len() || is_over || started.elapsed() > SHOWS_WITHIN {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn look_once(&self, fixture: &Fixture, mistake: &mut Mistake, found: &mut Found) {
        let Expected { health, status, doctor, exit, says } = self.expected;
        let own = fixture.site();
        let site = mistake.site.as_ref().unwrap_or(&own);
        if let Some(process) = &mut mistake.process {
            let ended = process.ended_within(Duration::ZERO);
            found.exit = shown(ended);
            found.says = process.last_line();
            if exit.is_none() && ended.is_some() {
                found.differs.push(format!("it ended with {}, though it was to stay", found.exit));
            }
            if !process.said(says) {
                found.differs.push(format!("last line: expected {says:?}"));
            }
        }
        let (code, body) = site.health();
        found.health = format!("{code} {body}");
        if code != health.0 || !body.contains(health.1) {
            found.differs.push(format!("/health: expected {} {:?}", health.0, health.1));
            return;
        }
        let (_, shown) = fixture.ask("status", site);
        if shown.contains(status) {
            found.status = line_with(&shown, status);
        } else {
            found.status = shown.lines().take(12).collect::<Vec<_>>().join(" / ");
            found.differs.push(format!("status: expected {status:?}"));
            return;
        }
        let (code, said) = fixture.ask("doctor", site);
        found.doctor = format!("{code} {}", line_with(&said, doctor.1));
        if code != doctor.0 || !said.contains(doctor.1) {
            found.doctor = format!("{code} {}", said.lines().take(6).collect::<Vec<_>>().join(" / "));
            found.differs.push(format!("doctor: expected {} {:?}", doctor.0, doctor.1));
        }
    }
}

// === impl Mistake ===

impl Mistake {
    /// One that no process makes.
    pub(crate) fn of_nobody() -> Self {
        Self { process: None, site: None, undo: None, held: Vec::new() }
    }

    pub(crate) fn of(process: Process) -> Self {
        Self { process: Some(process), ..Self::of_nobody() }
    }

    /// It is to be seen in this cluster.
    pub(crate) fn at(self, site: Site) -> Self {
        Self { site: Some(site), ..self }
    }

    /// It is taken back by `undo`, when its process has been stopped.
    pub(crate) fn undone_by(self, undo: fn(&mut Fixture)) -> Self {
        Self { undo: Some(undo), ..self }
    }

    /// It needs this as long as it lasts.
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
