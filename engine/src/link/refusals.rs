//! The log of what is refused: every refusal is counted, few are written, so that a flood does not fill a disk.

use std::fmt::Display;
use std::time::Instant;

use super::limits::REFUSAL_LOG_EVERY;

/// Counts refusals and writes at most one log line per [`REFUSAL_LOG_EVERY`].
#[derive(Debug)]
pub(crate) struct Refusals {
    /// The kind of thing that is refused.
    what: &'static str,
    written: Option<Instant>,
    unwritten: u64,
}

// === impl Refusals ===

impl Refusals {
    /// None yet, of things of this kind.
    pub(crate) fn of(what: &'static str) -> Self {
        Self { what, written: None, unwritten: 0 }
    }

    /// Notes that something of `peer` was refused because of `cause`.
    pub(crate) fn record(&mut self, peer: &dyn Display, cause: &dyn Display) {
        if let Some(unwritten) = self.count(Instant::now()) {
            tracing::warn!(%peer, %cause, unwritten, "{} refused", self.what);
        }
    }

    /// The number of refusals not written since the last line, if a line is due.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if self.written.is_some_and(|written| now.duration_since(written) < REFUSAL_LOG_EVERY) {
            self.unwritten += 1;
            return None;
        }
        self.written = Some(now);
        Some(std::mem::take(&mut self.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_logs_one_line_per_second_with_the_count() {
        let (mut refusals, start) = (Refusals::of("connection"), Instant::now());
        assert_eq!(refusals.count(start), Some(0));
        for _ in 0..5000 {
            assert_eq!(refusals.count(start + REFUSAL_LOG_EVERY / 2), None);
        }
        assert_eq!(refusals.count(start + REFUSAL_LOG_EVERY), Some(5000));
    }
}
