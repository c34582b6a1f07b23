//! Detects a compute thread that hangs. If a device or a disk hangs, the rest of the process still sends heartbeats,
//! for ever. Such a stage has to end, so that others take its layers. Pure.

use std::time::{Duration, Instant};

use crate::limits::{STEP_MAX, STEP_MAX_FIRST};

/// A thread hangs after this number of times the longest step so far: that step was perhaps not a long one.
const FACTOR: u32 = 16;
/// Longest time that one check adds: in a process that was stopped, or on a machine that slept, the thread stood still,
/// too.
const CHECK_STEP_MAX: Duration = Duration::from_millis(200);

/// The state of the watchdog.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Micro-batches that were given to the thread and have not come out.
    pending: usize,
    /// Time that it has spent at the current one, as far as that was watched.
    current: Duration,
    checked_at: Instant,
    longest: Option<Duration>,
}

// === impl Watchdog ===

impl Watchdog {
    pub(super) fn new(now: Instant) -> Self {
        Self { pending: 0, current: Duration::ZERO, checked_at: now, longest: None }
    }

    /// A micro-batch was given to the thread.
    pub(super) fn stepping(&mut self) {
        self.pending += 1;
    }

    /// A micro-batch came out after `compute`. `None` if it had no rows.
    pub(super) fn stepped(&mut self, compute: Option<Duration>) {
        self.pending = self.pending.saturating_sub(1);
        self.current = Duration::ZERO;
        self.longest = self.longest.max(compute);
    }

    /// The time that the thread has spent at the current micro-batch, if that is too long. To be called at every tick.
    pub(super) fn hangs(&mut self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.checked_at).min(CHECK_STEP_MAX);
        self.checked_at = now;
        self.current = if self.pending == 0 { Duration::ZERO } else { self.current + since };
        let most = self.longest.map_or(STEP_MAX_FIRST, |longest| (longest * FACTOR).clamp(STEP_MAX, STEP_MAX_FIRST));
        (self.current > most).then_some(self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks every 100 ms until the thread hangs, for at most `most`.
    fn watch(watchdog: &mut Watchdog, now: &mut Instant, most: Duration) -> Option<Duration> {
        let end = *now + most;
        while *now < end {
            *now += Duration::from_millis(100);
            if let Some(hangs_for) = watchdog.hangs(*now) {
                return Some(hangs_for);
            }
        }
        None
    }

    #[test]
    fn only_a_thread_with_work_and_without_progress_hangs() {
        let mut now = Instant::now();
        let mut watchdog = Watchdog::new(now);
        let seconds = Duration::from_secs;
        assert_eq!(watch(&mut watchdog, &mut now, seconds(1000)), None, "nothing to do");
        watchdog.stepping();
        watchdog.stepping();
        assert_eq!(watch(&mut watchdog, &mut now, STEP_MAX_FIRST), None, "the first may read from a slow disk");
        watchdog.stepped(Some(seconds(1)));
        assert_eq!(watch(&mut watchdog, &mut now, seconds(16)), None);
        assert_eq!(
            watch(&mut watchdog, &mut now, seconds(1)),
            Some(Duration::from_millis(16_100)),
            "the longest took 1 s"
        );
        watchdog.stepped(Some(Duration::from_millis(1)));
        assert_eq!(watch(&mut watchdog, &mut now, seconds(1000)), None, "nothing to do");
    }

    #[test]
    fn quick_steps_and_a_stopped_process_do_not_trigger_it() {
        let mut now = Instant::now();
        let mut watchdog = Watchdog::new(now);
        watchdog.stepping();
        watchdog.stepped(Some(Duration::from_micros(3)));
        watchdog.stepping();
        assert_eq!(watch(&mut watchdog, &mut now, STEP_MAX), None);
        watchdog.stepped(Some(Duration::from_micros(3)));
        watchdog.stepping();
        now += 10 * STEP_MAX;
        assert_eq!(watchdog.hangs(now), None, "it was not watched meanwhile");
        assert!(watch(&mut watchdog, &mut now, STEP_MAX + Duration::from_secs(1)).is_some());
    }
}
