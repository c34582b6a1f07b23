//! What a stage took of the epochs, as the laws count it.

use std::collections::BTreeMap;

use schema::frame::Hop;
use schema::{Epoch, Generation, Step};

use super::stage::name;
use super::surroundings::{Party, Surroundings};

/// For each gateway's slot, the epoch at hand and the step that comes, since the shard was loaded.
#[derive(Debug, Default)]
pub(super) struct Taken {
    slots: BTreeMap<u32, (Generation, Epoch, Step)>,
}

// === impl Taken ===

impl Taken {
    /// What is taken belongs to the shard that is held (generation, slot, whether it is ready), and continues what was
    /// taken before.
    pub(super) fn check(
        &mut self,
        party: Party,
        hop: &Hop,
        held: Option<(Generation, u32, bool)>,
        around: &mut Surroundings,
    ) {
        around.law(held == Some((hop.generation, hop.slot, true)), || {
            format!("{} took a frame for what it does not serve: {hop:?}", name(party))
        });
        let (generation, epoch, next) = self.slots.get(&hop.gateway).copied().unwrap_or_default();
        let (known, found) = ((generation, epoch), (hop.generation, hop.epoch));
        let next = if found == known { next } else { Step(0) };
        around.law(found >= known && hop.step == next, || {
            let (of, known) = (hop.epoch, epoch);
            format!(
                "{} took step {} of epoch {of}, where step {next} comes, after epoch {known}",
                name(party),
                hop.step
            )
        });
        self.slots.insert(hop.gateway, (found.0, found.1, next.next()));
    }
}
