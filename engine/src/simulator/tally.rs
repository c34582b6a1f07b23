//! What a seed met on its course: shows that the simulator does what it is made for, and always does it alike.

use std::collections::BTreeMap;

use super::surroundings::Moment;

/// Counts by name, and a digest of all that happened.
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

    /// Something happened at `moment`.
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
