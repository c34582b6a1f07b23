//! Standing quarantine: a stage that others struck off while it was alive, or that struck itself off since a gateway does not
//! hear it, has a way to them that is broken, so it does not come back at once. Each time that it happens again it stays away for longer.

use std::time::{Duration, Instant};

use crate::limits::{QUARANTINE_FORGOTTEN, QUARANTINE_MAX, QUARANTINE_MIN};

/// How long a stage stands quarantine.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    struck: Option<Instant>,
    pause: Duration,
}

// === impl Quarantine ===

impl Quarantine {
    /// The stage was struck off.
    pub(crate) fn evicted(&mut self, now: Instant) {
        let lately = self.struck.is_some_and(|last| now.saturating_duration_since(last) < QUARANTINE_FORGOTTEN);
        self.pause = if lately { (2 * self.pause).min(QUARANTINE_MAX) } else { QUARANTINE_MIN };
        self.struck = Some(now);
    }

    /// For how long it is to stand quarantine from now on; `None` when it may come back.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        let left = (self.struck? + self.pause).checked_duration_since(now)?;
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_struck_off_again_and_again_stays_away_for_longer_up_to_a_bound() {
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
