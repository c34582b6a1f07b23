//! The rate at which bytes are served: high while the machine is idle, low while it computes tokens. Pure.

use std::time::{Duration, Instant};

/// The time until which the bytes that were served are spread.
#[derive(Debug, Default)]
pub(super) struct Pace {
    free_at: Option<Instant>,
}

// === impl Pace ===

impl Pace {
    /// Takes `bytes` at `bytes_per_second` and returns the time to wait before they are sent.
    pub(super) fn take(&mut self, bytes: u64, bytes_per_second: u64, now: Instant) -> Duration {
        let starts = self.free_at.map_or(now, |free_at| free_at.max(now));
        let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
        self.free_at = Some(starts + takes);
        starts - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spread_over_time_and_a_pause_saves_nothing_up() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(pace.take(100, 100, now), Duration::ZERO);
        assert_eq!(pace.take(50, 100, now), second);
        assert_eq!(pace.take(1, 100, now), second * 3 / 2);
        assert_eq!(pace.take(200, 100, now + second * 10), Duration::ZERO);
        assert_eq!(pace.take(1, 100, now + second * 10), second * 2);
    }
}
