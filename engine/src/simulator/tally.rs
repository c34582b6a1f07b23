//! Counts of the situations that a seed ran into. They show that the simulator covers the cases that it is made for,
//! and that a seed always takes the same course.

use std::collections::BTreeMap;

use super::time::Moment;

/// Counts by name, and a digest of the times of all events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    counts: BTreeMap<&'static str, u64>,
    digest: u64,
}

// === impl Tally ===

impl Tally {
    pub(super) fn add(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }

    /// Adds an event at `moment` to the digest.
    pub(super) fn tick(&mut self, moment: Moment) {
        self.digest = self.digest.wrapping_mul(0x0100_0000_01b3) ^ moment;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            self.add(what, *count);
        }
        self.tick(other.digest);
    }

    pub(super) fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }
}
