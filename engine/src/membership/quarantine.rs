//! Quarantine of a stage that was evicted while it was alive. Others evicted it, or it evicted itself because a gateway
//! takes no answers from it. Its connection to them is broken, so it does not come back at once. Each further eviction
//! makes the quarantine longer.

use std::time::{Duration, Instant};

use crate::limits::{QUARANTINE_FORGOTTEN, QUARANTINE_MAX, QUARANTINE_MIN};

/// A stage's quarantine.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    evicted_at: Option<Instant>,
    pause: Duration,
}

// === impl Quarantine ===

impl Quarantine {
    /// Notes that the stage was evicted.
    pub(crate) fn evicted(&mut self, now: Instant) {
        let lately = self.evicted_at.is_some_and(|last| now.saturating_duration_since(last) < QUARANTINE_FORGOTTEN);
        self.pause = if lately { (2 * self.pause).min(QUARANTINE_MAX) } else { QUARANTINE_MIN };
        self.evicted_at = Some(now);
    }

    /// The time left in quarantine. `None` if the stage may come back.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        let left = (self.evicted_at? + self.pause).checked_duration_since(now)?;
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_further_eviction_makes_the_quarantine_longer_up_to_a_bound() {
        let (mut quarantine, mut now) = (Quarantine::default(), Instant::now());
        assert_eq!(quarantine.left(now), None);
        let mut expected = QUARANTINE_MIN;
        for _ in 0..10 {
            quarantine.evicted(now);
            assert_eq!(quarantine.left(now), Some(expected));
            now += expected;
            assert_eq!(quarantine.left(now), None);
            expected = (2 * expected).min(QUARANTINE_MAX);
        }
        now += QUARANTINE_FORGOTTEN;
        quarantine.evicted(now);
        assert_eq!(quarantine.left(now), Some(QUARANTINE_MIN));
    }
}
