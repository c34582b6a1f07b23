//! The reasons why a cluster does not serve, for the terminal: each is printed once, and at most one in a second. Pure:
//! the callers pass in the time and print the reasons.

use std::time::{Duration, Instant};

/// The least time between two reasons.
const PRINT_INTERVAL: Duration = Duration::from_secs(1);
/// Time of a start in which nothing goes wrong: reasons within it disappear by themselves.
const START_TIME: Duration = Duration::from_millis(500);

/// The reason that was printed last, and one that waits to be printed.
#[derive(Debug)]
pub(super) struct Reasons {
    printed: String,
    waiting: Option<String>,
    earliest: Instant,
}

// === impl Reasons ===

impl Reasons {
    /// No reasons yet, for a cluster that starts at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { printed: String::new(), waiting: None, earliest: now + START_TIME }
    }

    /// Takes the reason why the cluster does not serve now. `None` if it serves.
    pub(super) fn update(&mut self, reason: Option<&str>) {
        if reason.is_none() {
            // The same reason is printed again if it comes again later.
            self.printed.clear();
        }
        let reason = reason.filter(|reason| !reason.is_empty() && *reason != self.printed);
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
        self.printed = self.waiting.take()?;
        self.earliest = now + PRINT_INTERVAL;
        Some(&self.printed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_without_problems_prints_nothing() {
        let start = Instant::now();
        let mut reasons = Reasons::new(start);
        reasons.update(Some("no stage has joined"));
        assert_eq!((reasons.due(), reasons.take(start)), (Some(start + START_TIME), None));
        reasons.update(None);
        assert_eq!((reasons.due(), reasons.take(start + START_TIME)), (None, None));
    }

    #[test]
    fn each_reason_is_printed_once_and_within_a_second() {
        let start = Instant::now();
        let mut reasons = Reasons::new(start);
        let first = start + START_TIME;
        reasons.update(Some("too small"));
        assert_eq!(reasons.take(first), Some("too small"));
        reasons.update(Some("too small"));
        assert_eq!((reasons.due(), reasons.take(first + PRINT_INTERVAL)), (None, None));
        let second = first + PRINT_INTERVAL;
        reasons.update(Some("one"));
        assert_eq!(reasons.take(second), Some("one"));
        // Of reasons that come at the same moment, the last counts.
        reasons.update(Some("two"));
        reasons.update(Some("three"));
        assert_eq!((reasons.due(), reasons.take(second)), (Some(second + PRINT_INTERVAL), None));
        assert_eq!(reasons.take(second + PRINT_INTERVAL), Some("three"));
        // A reason that equals the one printed last is not printed again.
        reasons.update(Some("two"));
        reasons.update(Some("three"));
        assert_eq!(reasons.due(), None);
    }

    #[test]
    fn a_reason_that_comes_again_is_printed_again() {
        let start = Instant::now();
        let mut reasons = Reasons::new(start);
        reasons.update(Some("stage a is gone"));
        assert!(reasons.take(start + PRINT_INTERVAL).is_some());
        reasons.update(None);
        reasons.update(Some("stage a is gone"));
        assert_eq!(reasons.take(start + PRINT_INTERVAL * 3), Some("stage a is gone"));
    }
}
