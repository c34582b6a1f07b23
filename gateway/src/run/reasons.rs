//! The reasons why a cluster does not serve, for the terminal: each is printed once, and at most one in a second. Pure:
//! the callers pass in the time and print the reasons.

use std::time::{Duration, Instant};

/// The least time between two reasons.
const EVERY: Duration = Duration::from_secs(1);
/// Time of a start in which nothing goes wrong: reasons within it disappear by themselves.
const START_TIME: Duration = Duration::from_millis(500);

/// The reason that was printed last, and one that waits to be printed.
#[derive(Debug)]
pub(super) struct Reasons {
    said: String,
    waiting: Option<String>,
    earliest: Instant,
}

// === impl Reasons ===

impl Reasons {
    /// No reasons yet, for a cluster that starts at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { said: String::new(), waiting: None, earliest: now + START_TIME }
    }

    /// Takes the reason why the cluster does not serve now. `None` if it serves.
    pub(super) fn see(&mut self, reason: Option<&str>) {
        if reason.is_none() {
            // The same reason is printed again if it comes again later.
            self.said.clear();
        }
        let reason = reason.filter(|reason| !reason.is_empty() && *reason != self.said);
        self.waiting = reason.map(str::to_owned);
    }

    /// The time at which the waiting reason may be printed. `None` if no reason waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|_| self.earliest)
    }

    /// The reason to print at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<&str> {
        if now < self.earliest {
            return None;
        }
        self.said = self.waiting.take()?;
        self.earliest = now + EVERY;
        Some(&self.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_in_which_nothing_goes_wrong_says_nothing() {
        let start = Instant::now();
        let mut reasons = Reasons::new(start);
        reasons.see(Some("no stage has joined"));
        assert_eq!((reasons.due(), reasons.take(start)), (Some(start + START_TIME), None));
        reasons.see(None);
        assert_eq!((reasons.due(), reasons.take(start + START_TIME)), (None, None));
    }

    #[test]
    fn each_reason_is_said_once_and_within_a_second_of_coming() {
        let start = Instant::now();
        let mut reasons = Reasons::new(start);
        let first = start + START_TIME;
        reasons.see(Some("too small"));
        assert_eq!(reasons.take(first), Some("too small"));
        reasons.see(Some("too small"));
        assert_eq!((reasons.due(), reasons.take(first + EVERY)), (None, None));
        let second = first + EVERY;
        reasons.see(Some("one"));
        assert_eq!(reasons.take(second), Some("one"));
        // Of reasons that come at the same moment, the last counts.
        reasons.see(Some("two"));
        reasons.see(Some("three"));
        assert_eq!((reasons.due(), reasons.take(second)), (Some(second + EVERY), None));
        assert_eq!(reasons.take(second + EVERY), Some("three"));
        // A reason that equals the one printed last is not printed again.
        reasons.see(Some("two"));
        reasons.see(Some("three"));
        assert_eq!(reasons.due(), None);
    }

    #[test]
    fn a_cluster_that_is_interrupted_again_says_why_again() {
        let start = Instant::now();
        let mut reasons = Reasons::new(start);
        reasons.see(Some("stage a is gone"));
        assert!(reasons.take(start + EVERY).is_some());
        reasons.see(None);
        reasons.see(Some("stage a is gone"));
        assert_eq!(reasons.take(start + EVERY * 3), Some("stage a is gone"));
    }
}
