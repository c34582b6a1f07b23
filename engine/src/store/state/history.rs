//! The last changes, for watches that start in the past or lag. Their number and bytes are bounded, and whole commits
//! are dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{KeyRange, Record, limits};

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Event {
    pub deleted: bool,
    /// The written record. A deletion's has only the key and the revision.
    pub record: Arc<Record>,
    pub prev: Option<Arc<Record>>,
}

impl Event {
    fn revision(&self) -> i64 {
        self.record.mod_revision
    }

    /// Bytes that this event keeps alive. The previous value counts too: once it is gone from the store, only the event
    /// holds it.
    fn bytes(&self) -> usize {
        self.record.bytes() + self.prev.as_ref().map_or(0, |prev| prev.bytes())
    }
}

/// The changes asked for are not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct HistoryGone {
    /// The oldest revision that is still kept.
    pub oldest: i64,
}

/// Past events, oldest first.
#[derive(Debug)]
pub(super) struct History {
    events: VecDeque<Event>,
    bytes: usize,
    /// All events at this revision and later are kept.
    oldest: i64,
}

impl History {
    pub(super) fn new() -> Self {
        Self { events: VecDeque::new(), bytes: 0, oldest: 0 }
    }

    pub(super) fn oldest(&self) -> i64 {
        self.oldest
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the events of one commit and drops the oldest commits while a bound is exceeded.
    pub(super) fn push(&mut self, events: Vec<Event>) {
        self.bytes += events.iter().map(Event::bytes).sum::<usize>();
        self.events.extend(events);
        while self.events.len() > limits::HISTORY_EVENTS_MAX || self.bytes > limits::HISTORY_BYTES_MAX {
            let Some(first) = self.events.front() else { break };
            self.compact(first.revision() + 1);
        }
    }

    /// Forgets all events before `revision`.
    pub(super) fn compact(&mut self, revision: i64) {
        while let Some(first) = self.events.front()
            && first.revision() < revision
        {
            self.bytes -= first.bytes();
            self.events.pop_front();
        }
        self.oldest = self.oldest.max(revision);
    }

    /// Takes back all events after `revision`.
    pub(super) fn forget_after(&mut self, revision: i64) {
        while let Some(last) = self.events.back()
            && last.revision() > revision
        {
            self.bytes -= last.bytes();
            self.events.pop_back();
        }
    }

    /// Events in `range` at or after `from`, cut after a commit once there are enough, and the revision to go on from.
    pub(super) fn since(&self, range: &KeyRange, from: i64, current: i64) -> Result<(Vec<Event>, i64), HistoryGone> {
        if from < self.oldest {
            return Err(HistoryGone { oldest: self.oldest });
        }
        let start = self.events.partition_point(|event| event.revision() < from);
        let mut found: Vec<Event> = Vec::new();
        let mut bytes = 0;
        let mut next = from.max(current + 1);
        for event in self.events.range(start..) {
            let full = found.len() >= limits::WATCH_BATCH_EVENTS_MAX || bytes >= limits::WATCH_BATCH_BYTES_MAX;
            if full && found.last().is_some_and(|last| last.revision() < event.revision()) {
                next = event.revision();
                break;
            }
            if range.contains(&event.record.key) {
                bytes += event.bytes();
                found.push(event.clone());
            }
        }
        Ok((found, next))
    }

    /// The events after `revision`, newest first. Undoing them leads back to that revision.
    pub(super) fn back_to(&self, revision: i64) -> impl Iterator<Item = &Event> {
        self.events.iter().rev().take_while(move |event| event.revision() > revision)
    }
}
