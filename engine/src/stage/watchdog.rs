//! Whether the compute thread is still getting on. A device or a disk that hangs answers nothing, and the rest of the
//! process would give signs of life for ever: such a stage has to go, so that others take its layers. Pure.

use std::time::{Duration, Instant};

use crate::limits::{STEP_MAX, STEP_MAX_FIRST};

/// So many times the longest step so far: it was perhaps not a long one.
const FACTOR: u32 = 16;
/// What one look adds at most: in a process that was stopped, or on a machine that slept, the thread stood still, too.
const LOOK_MAX: Duration = Duration::from_millis(200);

/// What is known of the thread.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Micro-batches that were given to it and did not come out.
    under_way: usize,
    /// For how long it has been at the one at hand, as far as that was watched.
    at_it: Duration,
    looked: Instant,
    longest: Option<Duration>,
}

// === impl Watchdog ===

impl Watchdog {
    pub(super) fn new(now: Instant) -> Self {
        Self { under_way: 0, at_it: Duration::ZERO, looked: now, longest: None }
    }

    /// A micro-batch was given to the thread.
    pub(super) fn stepping(&mut self) {
        self.under_way += 1;
    }

    /// One came out, after so much computing; `None`: there was nothing in it to compute.
    pub(super) fn stepped(&mut self, compute: Option<Duration>) {
        self.under_way = self.under_way.saturating_sub(1);
        self.at_it = Duration::ZERO;
        self.longest = self.longest.max(compute);
    }

    /// To be asked every few moments: for how long the thread has been at one micro-batch, when that is too long.
    pub(super) fn hangs(&mut self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.looked).min(LOOK_MAX);
        self.looked = now;
        self.at_it = if self.under_way == 0 { Duration::ZERO } else { self.at_it + since };
        let most = self.longest.map_or(STEP_MAX_FIRST, |longest| (longest * FACTOR).clamp(STEP_MAX, STEP_MAX_FIRST));
        (self.at_it > most).then_some(self.at_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 100 ms for as long as it does not hang, at most until `end`.
    fn watch(dog: &mut Watchdog, now: &mut Instant, most: Duration) -> Option<Duration> {
        let end = *now + most;
        while *now < end {
            *now += Duration::from_millis(100);
            if let Some(hung) = dog.hangs(*now) {
                return Some(hung);
            }
        }
        None
    }

    #[test]
    fn only_a_thread_that_has_work_and_does_not_get_on_hangs() {
        let mut now = Instant::now();
        let mut dog = Watchdog::new(now);
        let seconds = Duration::from_secs;
        assert_eq!(watch(&mut dog, &mut now, seconds(1000)), None, "nothing to do");
        dog.stepping();
        dog.stepping();
        assert_eq!(watch(&mut dog, &mut now, STEP_MAX_FIRST), None, "the first may read from a slow disk");
        dog.stepped(Some(seconds(1)));
        assert_eq!(watch(&mut dog, &mut now, seconds(16)), None);
        assert_eq!(watch(&mut dog, &mut now, seconds(1)), Some(Duration::from_millis(16_100)), "the longest took 1 s");
        dog.stepped(Some(Duration::from_millis(1)));
        assert_eq!(watch(&mut dog, &mut now, seconds(1000)), None, "nothing to do");
    }

    #[test]
    fn neither_quick_steps_make_it_hasty_nor_a_process_that_was_stopped() {
        let mut now = Instant::now();
        let mut dog = Watchdog::new(now);
        dog.stepping();
        dog.stepped(Some(Duration::from_micros(3)));
        dog.stepping();
        assert_eq!(watch(&mut dog, &mut now, STEP_MAX), None);
        dog.stepped(Some(Duration::from_micros(3)));
        dog.stepping();
        now += 10 * STEP_MAX;
        assert_eq!(dog.hangs(now), None, "it was not watched meanwhile");
        assert!(watch(&mut dog, &mut now, STEP_MAX + Duration::from_secs(1)).is_some());
    }
}
