//! Standing aside: a stage that others struck off while it was alive, or that struck itself off since a gateway does not
//! hear it, has a way to them that is broken, so it does not come back at once. Each time that it happens again it stays away for longer.

use std::time::{Duration, Instant};

use crate::limits::{ASIDE_FORGOTTEN, ASIDE_MAX, ASIDE_MIN};

/// How long a stage stands aside.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    struck: Option<Instant>,
    pause: Duration,
}

// === impl Aside ===

impl Aside {
    /// The stage was struck off.
    pub(crate) fn struck_off(&mut self, now: Instant) {
        let lately = self.struck.is_some_and(|last| now.saturating_duration_since(last) < ASIDE_FORGOTTEN);
        self.pause = if lately { (2 * self.pause).min(ASIDE_MAX) } else { ASIDE_MIN };
        self.struck = Some(now);
    }

    /// For how long it is to stand aside from now on; `None` when it may come back.
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
        let (mut aside, mut now) = (Aside::default(), Instant::now());
        assert_eq!(aside.left(now), None);
        let mut expected = ASIDE_MIN;
        for _ in 0..10 {
            aside.struck_off(now);
            assert_eq!(aside.left(now), Some(expected));
            now += expected;
            assert_eq!(aside.left(now), None);
            expected = (2 * expected).min(ASIDE_MAX);
        }
        now += ASIDE_FORGOTTEN;
        aside.struck_off(now);
        assert_eq!(aside.left(now), Some(ASIDE_MIN));
    }
}
