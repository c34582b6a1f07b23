//! A stage's activity: whether it computes for running requests. A pipeline's stages compute in turn, so one that has
//! just computed is active, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::runner::{Output, Runner, RunnerError, Work};
use schema::record::Speeds;

use super::limits::ACTIVE_FOR;

/// The steps of a stage's runners, as far as they are needed to know if it is active.
#[derive(Debug)]
pub struct Activity {
    /// True during a step.
    steps: AtomicBool,
    /// The end of the last one, in microseconds after `created`. 0 before the first.
    stepped_us: AtomicU64,
    created: Instant,
}

/// A runner of which the steps are noted.
pub(super) struct NotedRunner {
    inner: Box<dyn Runner>,
    activity: Arc<Activity>,
}

// === impl Activity ===

impl Default for Activity {
    fn default() -> Self {
        Self { steps: AtomicBool::new(false), stepped_us: AtomicU64::new(0), created: Instant::now() }
    }
}

impl Activity {
    /// True while a step is computed, and for `ACTIVE_FOR` after each.
    pub fn is_active(&self, now: Instant) -> bool {
        let stepped_us = self.stepped_us.load(Ordering::Relaxed);
        let stepped = self.created + Duration::from_micros(stepped_us);
        let is_recent = stepped_us > 0 && now.saturating_duration_since(stepped) < ACTIVE_FOR;
        is_recent || self.steps.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.steps.store(true, Ordering::Relaxed);
    }

    fn end(&self, now: Instant) {
        let after = now.saturating_duration_since(self.created).as_micros();
        self.stepped_us.store(u64::try_from(after).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        self.steps.store(false, Ordering::Relaxed);
    }
}

// === impl NotedRunner ===

impl NotedRunner {
    pub(super) fn new(inner: Box<dyn Runner>, activity: Arc<Activity>) -> Self {
        Self { inner, activity }
    }
}

impl Runner for NotedRunner {
    fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError> {
        self.activity.begin();
        let output = self.inner.step(work);
        self.activity.end(Instant::now());
        output
    }

    fn probe(&mut self) -> Option<Speeds> {
        self.inner.probe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks its own activity during each step.
    struct Asking(Arc<Activity>);

    impl Runner for Asking {
        fn step(&mut self, _: Work<'_>) -> Result<Output, RunnerError> {
            assert!(self.0.is_active(Instant::now() + 100 * ACTIVE_FOR), "not active during a long step");
            Err(RunnerError::Device("none".to_owned()))
        }
    }

    #[test]
    fn a_stage_is_active_during_its_steps_and_shortly_after_and_never_before() {
        let activity = Arc::new(Activity::default());
        assert!(!activity.is_active(Instant::now()), "active before its first step");
        let mut runner = NotedRunner::new(Box::new(Asking(activity.clone())), activity.clone());
        assert!(runner.probe().is_some());
        assert!(!activity.is_active(Instant::now()), "measuring the device is no request");
        // Steps that fail end, too.
        runner.step(Work { slices: &[], activations: &[] }).unwrap_err();
        let after = Instant::now();
        assert!(activity.is_active(after));
        assert!(!activity.is_active(after + ACTIVE_FOR), "active long after its last step");
    }
}
