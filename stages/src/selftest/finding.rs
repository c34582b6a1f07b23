//! The finding of one check.

use std::time::{Duration, Instant};

/// The finding of one check.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The thing that was checked.
    pub name: String,
    /// The outcome.
    pub outcome: Outcome,
    /// The time that it took.
    pub took: Duration,
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The device computes rightly.
    Passed,
    /// The device does not compute such a model, for this reason: the processor does.
    LeftOut(String),
    /// It computes wrongly: what was found, and what was expected.
    Failed(String),
}

// === impl Finding ===

impl Finding {
    /// The finding of `check`.
    pub(super) fn of(name: &str, check: impl FnOnce() -> Outcome) -> Self {
        let started = Instant::now();
        let outcome = check();
        Self { name: name.to_owned(), outcome, took: started.elapsed() }
    }
}

// === impl Outcome ===

impl From<Result<(), String>> for Outcome {
    fn from(checked: Result<(), String>) -> Self {
        checked.map_or_else(Self::Failed, |()| Self::Passed)
    }
}
