//! How long the head waits for a micro-batch before it takes it for lost: learned from how long others took. Pure.
//!
//! Micro-batches come back in order, so the oldest has the pipeline to itself from the moment the one before it came
//! back. What it takes from then on is compared with what its rows should take in every stage, one after the other.

use std::time::{Duration, Instant};

use crate::limits::{FLIGHT_WAIT_MAX, FLIGHT_WAIT_MAX_PER_ROW, FLIGHT_WAIT_MIN, PROVE_WAIT};

/// So many times what the slowest of the micro-batches before took, measured by its rows: one may meet a longer history,
/// weights that were not touched yet, a machine that does something else, or another gateway's work.
const FACTOR: f64 = 8.0;
/// What each micro-batch that comes back takes off the memory of slower ones, and of those that were given up.
const FADING: f64 = 0.01;

/// What was seen of the pipeline at hand.
#[derive(Debug, Default)]
pub(super) struct BatchTimeout {
    /// When a micro-batch came back last.
    returned: Option<Instant>,
    /// How many times what was expected the slowest took, of those that came back lately; `None` while nothing did.
    slowness: Option<f64>,
    /// How many were given up lately: each time the wait is doubled, so that a slow pipeline is not begun anew for ever. What is
    /// computed again comes back first, and says nothing of what did not: two gateways would hold each other up with it.
    given_up: f64,
}

// === impl BatchTimeout ===

impl BatchTimeout {
    /// The pipeline begins anew. In another placement nothing is known of it: weights may have to come from a disk.
    pub(super) fn begin_anew(&mut self, same_placement: bool) {
        self.returned = None;
        self.slowness = self.slowness.filter(|_| same_placement);
    }

    /// A micro-batch that was `sent` then came back, and was `expected` to take so many seconds.
    pub(super) fn came_back(&mut self, sent: Instant, expected: Option<f64>, now: Instant) {
        let took = now.saturating_duration_since(self.alone_since(sent)).as_secs_f64();
        self.returned = Some(now);
        self.given_up *= 1.0 - FADING;
        if let Some(expected) = expected.filter(|expected| *expected > 0.0) {
            let faded = self.slowness.map_or(1.0, |slowness| (slowness * (1.0 - FADING)).max(1.0));
            self.slowness = Some(faded.max(took / expected));
        }
    }

    /// When the oldest micro-batch in flight, of so many `rows`, is taken for lost.
    pub(super) fn ends(&self, sent: Instant, rows: u32, expected: Option<f64>) -> Instant {
        let most = FLIGHT_WAIT_MAX + FLIGHT_WAIT_MAX_PER_ROW * rows;
        let known = self.slowness.zip(expected).map(|(slowness, expected)| slowness * expected * FACTOR);
        let wait = known.map_or(most, |seconds| {
            let seconds = seconds.max(FLIGHT_WAIT_MIN.as_secs_f64()) * self.given_up.min(16.0).exp2();
            Duration::try_from_secs_f64(seconds).map_or(most, |wait| wait.min(most))
        });
        self.alone_since(sent) + wait
    }

    /// The moment at which an empty micro-batch that is alone on its way is taken for lost.
    pub(super) fn ends_of_proof(&self, sent: Instant) -> Instant {
        sent + PROVE_WAIT.mul_f64(self.given_up.min(3.0).exp2())
    }

    /// One was given up.
    pub(super) fn gave_up(&mut self) {
        self.given_up += 1.0;
    }

    fn alone_since(&self, sent: Instant) -> Instant {
        self.returned.map_or(sent, |returned| sent.max(returned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(20_500);

    fn seconds(from: Instant, to: Instant) -> f64 {
        (to.duration_since(from).as_secs_f64() * 100.0).round() / 100.0
    }

    #[test]
    fn what_nobody_knows_is_waited_for_as_long_as_possible() {
        let (mut batch_timeout, now) = (BatchTimeout::default(), Instant::now());
        assert_eq!(batch_timeout.ends(now, 1, Some(0.1)), now + MOST, "nothing came back yet");
        batch_timeout.came_back(now, Some(0.1), now + Duration::from_millis(100));
        assert_eq!(batch_timeout.ends(now, 1, None), now + Duration::from_millis(100) + MOST);
        batch_timeout.begin_anew(false);
        assert_eq!(batch_timeout.ends(now, 1, Some(0.1)), now + MOST, "another placement");
    }

    #[test]
    fn the_wait_follows_the_slowest_and_forgets_it() {
        let (mut batch_timeout, mut now) = (BatchTimeout::default(), Instant::now());
        let mut come_back = |batch_timeout: &mut BatchTimeout, millis| {
            let sent = now;
            now += Duration::from_millis(millis);
            batch_timeout.came_back(sent, Some(0.5), now);
            now
        };
        let now = come_back(&mut batch_timeout, 500);
        assert_eq!(seconds(now, batch_timeout.ends(now, 1, Some(0.5))), 4.0);
        assert_eq!(seconds(now, batch_timeout.ends(now, 1, Some(0.01))), 2.0, "a hiccup takes longer than that");
        let now = come_back(&mut batch_timeout, 1000);
        assert_eq!(seconds(now, batch_timeout.ends(now, 1, Some(0.5))), 8.0);
        assert_eq!(seconds(now, batch_timeout.ends(now, 1, Some(9.0))), 20.5, "never more than what is bearable");
        let now = (0..100).map(|_| come_back(&mut batch_timeout, 400)).last().unwrap();
        assert_eq!(seconds(now, batch_timeout.ends(now, 1, Some(0.5))), 4.0);
    }

    #[test]
    fn the_oldest_is_timed_from_when_it_is_the_oldest() {
        let (mut batch_timeout, now) = (BatchTimeout::default(), Instant::now());
        let second = Duration::from_secs(1);
        batch_timeout.came_back(now, Some(1.0), now + second);
        batch_timeout.came_back(now, Some(1.0), now + 2 * second);
        assert_eq!(
            seconds(now, batch_timeout.ends(now, 1, Some(1.0))),
            10.0,
            "the second took no longer than the first"
        );
        assert_eq!(seconds(now, batch_timeout.ends(now + 5 * second, 1, Some(1.0))), 13.0);
    }

    #[test]
    fn whoever_gives_up_waits_twice_as_long_the_next_time() {
        let (mut batch_timeout, now) = (BatchTimeout::default(), Instant::now());
        batch_timeout.came_back(now, Some(0.1), now);
        let waits = [0; 5].map(|_| {
            let wait = seconds(now, batch_timeout.ends(now, 1, Some(0.1)));
            batch_timeout.gave_up();
            batch_timeout.begin_anew(true);
            // Of what is computed again, the first comes back.
            batch_timeout.came_back(now, Some(0.1), now);
            wait.round()
        });
        assert_eq!(waits, [2.0, 4.0, 8.0, 15.0, 21.0]);
        (0..1000).for_each(|_| batch_timeout.came_back(now, Some(0.1), now));
        assert_eq!(seconds(now, batch_timeout.ends(now, 1, Some(0.1))), 2.0, "it has come back for long");
    }
}
