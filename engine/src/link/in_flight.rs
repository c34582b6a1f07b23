//! The messages that a sender has accepted and that have not left its queue. Pure. This is the bound that ZeroMQ does
//! not have.

use std::collections::VecDeque;

use super::limits::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MESSAGES_MAX};

/// The sizes of the messages in flight, oldest first.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    sizes: VecDeque<usize>,
    bytes: usize,
    passed: u64,
}

// === impl InFlight ===

impl InFlight {
    /// True if a message of `bytes` may follow. A message that is alone always may, however large it is.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.sizes.is_empty()
            || (self.sizes.len() < IN_FLIGHT_MESSAGES_MAX && self.bytes.saturating_add(bytes) <= IN_FLIGHT_BYTES_MAX)
    }

    pub(super) fn accept(&mut self, bytes: usize) {
        self.sizes.push_back(bytes);
        self.bytes += bytes;
    }

    /// Notes that `passed` messages, counted from the first ever, have left the queue.
    pub(super) fn settle(&mut self, passed: u64) {
        while self.passed < passed {
            self.passed += 1;
            self.bytes -= self.sizes.pop_front().unwrap_or(0);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    pub(super) fn messages(&self) -> usize {
        self.sizes.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_messages_are_bounded_and_come_free_in_order() {
        let mut in_flight = InFlight::default();
        assert!(in_flight.has_room(IN_FLIGHT_BYTES_MAX + 1), "one alone always may");
        in_flight.accept(IN_FLIGHT_BYTES_MAX - 1);
        assert!(in_flight.has_room(1) && !in_flight.has_room(2));
        in_flight.settle(1);
        assert!(in_flight.is_empty() && in_flight.bytes() == 0);
        for _ in 0..IN_FLIGHT_MESSAGES_MAX {
            assert!(in_flight.has_room(1));
            in_flight.accept(1);
        }
        assert!(!in_flight.has_room(0));
        in_flight.settle(2);
        assert!(in_flight.has_room(0) && in_flight.messages() == IN_FLIGHT_MESSAGES_MAX - 1);
    }
}
