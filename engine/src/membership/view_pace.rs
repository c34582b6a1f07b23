//! The pace at which views are built: a share of the time, whatever a view costs.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{VIEW_TIME_PARTS, VIEW_WAIT_MAX};

/// The time before which no view is built, so that changes that come in quick succession share one.
#[derive(Debug, Default)]
pub(super) struct ViewPace(Option<Instant>);

// === impl ViewPace ===

impl ViewPace {
    /// A view has just been built, which took this time.
    pub(super) fn built(&mut self, took: Duration) {
        self.0 = Some(Instant::now() + wait(took));
    }

    /// True if the next view may be built.
    pub(super) fn is_due(&self) -> bool {
        self.0.is_none_or(|due| due <= Instant::now())
    }

    /// The time from which on the next view may be built.
    pub(super) fn due(&self) -> Instant {
        self.0.unwrap_or_else(Instant::now)
    }
}

/// The wait after a view that took `took`.
fn wait(took: Duration) -> Duration {
    took.saturating_mul(VIEW_TIME_PARTS - 1).min(VIEW_WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_take_a_tenth_of_the_time_and_wait_for_no_more_than_a_bound() {
        assert_eq!(wait(Duration::from_micros(50)), Duration::from_micros(450));
        assert_eq!(wait(Duration::from_millis(10)), Duration::from_millis(90));
        assert_eq!(wait(Duration::from_secs(2)), VIEW_WAIT_MAX);
    }
}
