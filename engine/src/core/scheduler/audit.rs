//! Invariants of a scheduler, for tests.

use std::collections::BTreeMap;

use super::Scheduler;
use crate::limits::{RUNNING_MAX, WAITING_MAX};
use crate::runner::KV_BLOCK_TOKENS;

impl Scheduler {
    /// Checks that every block is either free or owned, that only sequences with a common prefix own a block together,
    /// and that micro-batches in flight, running and waiting sequences keep their bounds.
    ///
    /// # Errors
    /// The broken invariant, in words.
    pub(crate) fn audit(&self) -> Result<(), String> {
        // For each owned block, its owners: the tokens of each, and the index of the block among the owner's blocks.
        let mut owners: BTreeMap<u32, Vec<(&[u32], usize)>> = BTreeMap::new();
        for sequence in self.sequences.values() {
            for (index, block) in sequence.blocks.iter().enumerate() {
                owners.entry(*block).or_default().push((&sequence.history, index));
            }
        }
        for (block, owners) in &owners {
            self.audit_block(*block, owners)?;
        }
        let (total, free) = (self.ledger.total(), self.ledger.free());
        if free + owners.len() != total {
            return Err(format!("{free} blocks are free and {} are owned, of {total}", owners.len()));
        }
        let stages = self.shape.as_ref().map_or(0, |shape| shape.stages.len());
        // One per stage, and one that waits in front of the first: see `next_batch`.
        if self.flights.len() > stages + 1 {
            return Err(format!("{} micro-batches are on their way through {stages} stages", self.flights.len()));
        }
        let (running, waiting) = self.load();
        if running > RUNNING_MAX || waiting > WAITING_MAX || running + waiting != self.sequences.len() {
            return Err(format!("of {} sequences, {running} run and {waiting} wait", self.sequences.len()));
        }
        Ok(())
    }

    /// Checks that the ledger counts as many owners of `block` as there are. Several sequences may own it only if their
    /// tokens fill it and are equal from position 0 to its end. `owners` has, for each owner, its tokens and the index
    /// of the block among its blocks.
    fn audit_block(&self, block: u32, owners: &[(&[u32], usize)]) -> Result<(), String> {
        if self.ledger.owners(block) as usize != owners.len() {
            let counted = self.ledger.owners(block);
            return Err(format!("block {block} has {} owners: the ledger counts {counted}", owners.len()));
        }
        let prefix = |(history, index): &(&[u32], usize)| {
            history.get(..(index + 1) * KV_BLOCK_TOKENS as usize).map(<[u32]>::to_vec)
        };
        let first = owners.first().and_then(prefix);
        let alike = owners.iter().all(|owner| prefix(owner) == first);
        if owners.len() > 1 && (first.is_none() || !alike) {
            return Err(format!("block {block} is owned by sequences that do not begin alike"));
        }
        Ok(())
    }
}
