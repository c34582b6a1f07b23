//! A gateway's share of the blocks of keys and values: the recorded parts, the parts in use by the ledger, and the
//! parts given up. Pure.

use std::time::Instant;

use schema::Step;
use schema::record::Share;

/// The parts of a gateway.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// The registration that they belong to.
    registration: Option<(u32, u64)>,
    /// The share that the store shows.
    recorded: Share,
    /// True if it has had its fair share since it was registered: before that the share is too small to serve with.
    pub(super) is_complete: bool,
    /// Parts of which the ledger hands out blocks.
    pub(super) used: Share,
    /// Parts that were given up, though the store does not show that yet.
    pub(super) given: Share,
    /// Micro-batches before this step may use the parts given up.
    pub(super) given_before: Step,
    /// Time from which parts that are recorded and not in use may be used.
    pub(super) gains_from: Option<Instant>,
}

// === impl Holdings ===

impl Holdings {
    /// Follows the store: slot and number of this gateway's registration, and its share. Returns the usable parts.
    pub(super) fn follow(&mut self, registered: Option<((u32, u64), Share)>) -> Share {
        let registration = registered.map(|(registration, _)| registration);
        if registration != self.registration {
            *self = Self { registration, used: self.used, ..Self::default() };
        }
        self.recorded = registered.map(|(_, share)| share).unwrap_or_default();
        self.given = self.given.common(self.recorded);
        self.usable()
    }

    /// The usable parts: those recorded and not given up.
    pub(super) fn usable(&self) -> Share {
        self.recorded.without(self.given)
    }
}
