//! What a gateway has of the blocks of keys and values, between the store's record of it and what its ledger gives out. Pure.

use std::time::Instant;

use schema::Step;
use schema::record::Share;

/// The parts a gateway has.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// The registration that they belong to.
    registration: Option<(u32, u64)>,
    /// As the store shows it.
    recorded: Share,
    /// Whether it has had a whole share since it was registered: before that it is too small to serve with.
    pub(super) is_complete: bool,
    /// Those the ledger gives out blocks of.
    pub(super) used: Share,
    /// Those that were given up though the store does not say so yet.
    pub(super) given: Share,
    /// Micro-batches before this step may use what was given up.
    pub(super) given_before: Step,
    /// When parts that are recorded and not used may be used.
    pub(super) gains_from: Option<Instant>,
}

// === impl Holdings ===

impl Holdings {
    /// Takes in what the store shows: slot and number of this gateway's registration, and its share. Returns what may be used.
    pub(super) fn see(&mut self, registered: Option<((u32, u64), Share)>) -> Share {
        let registration = registered.map(|(registration, _)| registration);
        if registration != self.registration {
            *self = Self { registration, used: self.used, ..Self::default() };
        }
        self.recorded = registered.map(|(_, share)| share).unwrap_or_default();
        self.given = self.given.common(self.recorded);
        self.usable()
    }

    /// What may be used: what is recorded and not given up.
    pub(super) fn usable(&self) -> Share {
        self.recorded.without(self.given)
    }
}
