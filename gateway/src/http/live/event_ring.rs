//! The newest events, numbered from 1, within bounds of number and bytes. Pure.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::http::limits::{LIVE_EVENTS_BYTES_MAX, LIVE_EVENTS_MAX};

/// The newest events. The oldest ones are dropped first.
#[derive(Debug, Default)]
pub(super) struct EventRing {
    /// Number of the newest event. 0 if there was none.
    newest: u64,
    events: VecDeque<Bytes>,
    bytes: usize,
}

// === impl EventRing ===

impl EventRing {
    /// Number of the newest event.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Appends the event that `write` makes from its number.
    pub(super) fn push(&mut self, write: impl FnOnce(u64) -> Bytes) {
        self.newest += 1;
        let event = write(self.newest);
        self.bytes += event.len();
        self.events.push_back(event);
        while self.events.len() > LIVE_EVENTS_MAX || self.bytes > LIVE_EVENTS_BYTES_MAX {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }

    /// The events after number `seen`. `None` if the next one has been dropped, or if there has been no event `seen`.
    pub(super) fn after(&self, seen: u64) -> Option<impl Iterator<Item = &Bytes>> {
        let missing = usize::try_from(self.newest.checked_sub(seen)?).ok()?;
        let first = self.events.len().checked_sub(missing)?;
        Some(self.events.iter().skip(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(sizes: &[usize]) -> EventRing {
        let mut ring = EventRing::default();
        for size in sizes {
            ring.push(|id| Bytes::from(vec![id as u8; *size]));
        }
        ring
    }

    fn after(ring: &EventRing, seen: u64) -> Option<Vec<u8>> {
        ring.after(seen).map(|events| events.map(|event| event[0]).collect())
    }

    #[test]
    fn a_reader_gets_the_events_after_the_last_one_it_saw() {
        let ring = ring(&[1, 1, 1]);
        assert_eq!(after(&ring, 0), Some(vec![1, 2, 3]));
        assert_eq!(after(&ring, 2), Some(vec![3]));
        assert_eq!(after(&ring, 3), Some(vec![]));
        assert_eq!(after(&ring, 4), None, "an event that has not been");
        assert_eq!(after(&EventRing::default(), 0), Some(vec![]));
    }

    #[test]
    fn a_reader_that_is_too_far_behind_gets_none() {
        let many = ring(&vec![1; LIVE_EVENTS_MAX + 2]);
        assert_eq!(many.after(2).map(Iterator::count), Some(LIVE_EVENTS_MAX));
        assert!(many.after(1).is_none());
        let large = ring(&[LIVE_EVENTS_BYTES_MAX, 1]);
        assert_eq!(after(&large, 1), Some(vec![2]));
        assert!(large.after(0).is_none());
        let too_large = ring(&[LIVE_EVENTS_BYTES_MAX + 1]);
        assert!(too_large.after(0).is_none() && after(&too_large, 1) == Some(vec![]));
    }
}
