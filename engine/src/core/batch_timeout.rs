//! Time for which the gateway waits for a micro-batch before it counts it as lost. It is learned from the times of
//! earlier ones. Pure.
//!
//! Micro-batches come back in order, so the oldest has the pipeline to itself once the one before it has come back. Its
//! time from then on is compared with the expected time of its rows in all stages, one after the other.

use std::time::{Duration, Instant};

use crate::limits::{FLIGHT_WAIT_MAX, FLIGHT_WAIT_MAX_PER_ROW, FLIGHT_WAIT_MIN, PROOF_TIMEOUT};

/// Factor over the slowest of the earlier micro-batches, in proportion to expected times: a micro-batch may meet a
/// longer history, weights that were not touched yet, a machine that is busy with something else, or another gateway's
/// work.
const FACTOR: f64 = 8.0;
/// Share by which the recorded slowness, and the count of timeouts, fade with each micro-batch that comes back.
const FADING: f64 = 0.01;

/// Observations of the current pipeline.
#[derive(Debug, Default)]
pub(super) struct BatchTimeout {
    /// The time at which the last micro-batch came back.
    returned: Option<Instant>,
    /// The ratio of actual to expected time of the slowest recent micro-batch. `None` before one has come back.
    slowness: Option<f64>,
    /// Recent timeouts, with fading. Each one doubles the wait, so that a slow pipeline is not restarted for ever. The
    /// micro-batch that is computed again comes back first and shows nothing about the lost one: without the doubling,
    /// two gateways would hold each other up.
    timeouts: f64,
}

// === impl BatchTimeout ===

impl BatchTimeout {
    /// A new epoch begins. In another placement earlier times mean nothing: weights may have to come from a disk.
    pub(super) fn new_epoch(&mut self, same_placement: bool) {
        self.returned = None;
        self.slowness = self.slowness.filter(|_| same_placement);
    }

    /// A micro-batch that was sent at `sent` has come back. It was expected to take `expected` seconds.
    pub(super) fn batch_returned(&mut self, sent: Instant, expected: Option<f64>, now: Instant) {
        let took = now.saturating_duration_since(self.alone_since(sent)).as_secs_f64();
        self.returned = Some(now);
        self.timeouts *= 1.0 - FADING;
        if let Some(expected) = expected.filter(|expected| *expected > 0.0) {
            let faded = self.slowness.map_or(1.0, |slowness| (slowness * (1.0 - FADING)).max(1.0));
            self.slowness = Some(faded.max(took / expected));
        }
    }

    /// The time at which the oldest micro-batch in flight, of `rows` rows, counts as lost.
    pub(super) fn deadline(&self, sent: Instant, rows: u32, expected: Option<f64>) -> Instant {
        let most = FLIGHT_WAIT_MAX + FLIGHT_WAIT_MAX_PER_ROW * rows;
        let known = self.slowness.zip(expected).map(|(slowness, expected)| slowness * expected * FACTOR);
        let wait = known.map_or(most, |seconds| {
            let seconds = seconds.max(FLIGHT_WAIT_MIN.as_secs_f64()) * self.timeouts.min(16.0).exp2();
            Duration::try_from_secs_f64(seconds).map_or(most, |wait| wait.min(most))
        });
        self.alone_since(sent) + wait
    }

    /// The time at which an empty micro-batch that is alone in flight counts as lost.
    pub(super) fn proof_deadline(&self, sent: Instant) -> Instant {
        sent + PROOF_TIMEOUT.mul_f64(self.timeouts.min(3.0).exp2())
    }

    /// A micro-batch timed out.
    pub(super) fn timed_out(&mut self) {
        self.timeouts += 1.0;
    }

    fn alone_since(&self, sent: Instant) -> Instant {
        self.returned.map_or(sent, |returned| sent.max(returned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(20_500);

    fn seconds(from: Instant, to: Instant) -> f64 {
        (to.duration_since(from).as_secs_f64() * 100.0).round() / 100.0
    }

    #[test]
    fn without_observations_the_timeout_is_the_longest() {
        let (mut batch_timeout, now) = (BatchTimeout::default(), Instant::now());
        assert_eq!(batch_timeout.deadline(now, 1, Some(0.1)), now + LONGEST, "nothing came back yet");
        batch_timeout.batch_returned(now, Some(0.1), now + Duration::from_millis(100));
        assert_eq!(batch_timeout.deadline(now, 1, None), now + Duration::from_millis(100) + LONGEST);
        batch_timeout.new_epoch(false);
        assert_eq!(batch_timeout.deadline(now, 1, Some(0.1)), now + LONGEST, "another placement");
    }

    #[test]
    fn the_timeout_follows_the_slowest_batch_and_forgets_it() {
        let (mut batch_timeout, mut now) = (BatchTimeout::default(), Instant::now());
        let mut come_back = |batch_timeout: &mut BatchTimeout, millis| {
            let sent = now;
            now += Duration::from_millis(millis);
            batch_timeout.batch_returned(sent, Some(0.5), now);
            now
        };
        let now = come_back(&mut batch_timeout, 500);
        assert_eq!(seconds(now, batch_timeout.deadline(now, 1, Some(0.5))), 4.0);
        assert_eq!(seconds(now, batch_timeout.deadline(now, 1, Some(0.01))), 2.0, "a hiccup takes longer than that");
        let now = come_back(&mut batch_timeout, 1000);
        assert_eq!(seconds(now, batch_timeout.deadline(now, 1, Some(0.5))), 8.0);
        assert_eq!(
            seconds(now, batch_timeout.deadline(now, 1, Some(9.0))),
            20.5,
            "never more than the longest timeout"
        );
        let now = (0..100).map(|_| come_back(&mut batch_timeout, 400)).last().unwrap();
        assert_eq!(seconds(now, batch_timeout.deadline(now, 1, Some(0.5))), 4.0);
    }

    #[test]
    fn a_batch_is_timed_from_the_moment_it_is_the_oldest() {
        let (mut batch_timeout, now) = (BatchTimeout::default(), Instant::now());
        let second = Duration::from_secs(1);
        batch_timeout.batch_returned(now, Some(1.0), now + second);
        batch_timeout.batch_returned(now, Some(1.0), now + 2 * second);
        assert_eq!(
            seconds(now, batch_timeout.deadline(now, 1, Some(1.0))),
            10.0,
            "the second took no longer than the first"
        );
        assert_eq!(seconds(now, batch_timeout.deadline(now + 5 * second, 1, Some(1.0))), 13.0);
    }

    #[test]
    fn each_timeout_doubles_the_next_one() {
        let (mut batch_timeout, now) = (BatchTimeout::default(), Instant::now());
        batch_timeout.batch_returned(now, Some(0.1), now);
        let waits = [0; 5].map(|_| {
            let wait = seconds(now, batch_timeout.deadline(now, 1, Some(0.1)));
            batch_timeout.timed_out();
            batch_timeout.new_epoch(true);
            // The first of the micro-batches that are computed again comes back.
            batch_timeout.batch_returned(now, Some(0.1), now);
            wait.round()
        });
        assert_eq!(waits, [2.0, 4.0, 8.0, 15.0, 21.0]);
        (0..1000).for_each(|_| batch_timeout.batch_returned(now, Some(0.1), now));
        assert_eq!(seconds(now, batch_timeout.deadline(now, 1, Some(0.1))), 2.0, "it has come back for long");
    }
}
