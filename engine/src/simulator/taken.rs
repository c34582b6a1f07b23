//! The micro-batches that a stage has taken, for the invariant that steps come in order.

use std::collections::BTreeMap;

use schema::frame::Hop;
use schema::{ClaimId, Epoch, Generation, Step};

use super::environment::Environment;
use super::process_id::ProcessId;

/// For each gateway's slot, the current epoch and the next step, since the shard was loaded.
#[derive(Debug, Default)]
pub(super) struct Taken {
    slots: BTreeMap<u32, (Generation, Epoch, Step)>,
}

// === impl Taken ===

impl Taken {
    /// Checks that a micro-batch is for the shard that the stage holds ready, and that its step is the next one.
    pub(super) fn check(&mut self, process: ProcessId, hop: &Hop, ready: Option<ClaimId>, env: &mut Environment) {
        env.check(ready == Some(ClaimId::new(hop.generation, hop.slot)), || {
            format!("{process} took a frame for what it does not serve: {hop:?}")
        });
        let (generation, epoch, next) = self.slots.get(&hop.gateway).copied().unwrap_or_default();
        let (known, found) = ((generation, epoch), (hop.generation, hop.epoch));
        let next = if found == known { next } else { Step(0) };
        env.check(found >= known && hop.step == next, || {
            let (of, known) = (hop.epoch, epoch);
            format!("{process} took step {} of epoch {of}, where step {next} comes, after epoch {known}", hop.step)
        });
        self.slots.insert(hop.gateway, (found.0, found.1, next.next()));
    }
}
