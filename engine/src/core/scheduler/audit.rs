//! Invariants of a scheduler, for tests.

use std::collections::BTreeMap;

use super::Scheduler;
use crate::limits::{RUNNING_MAX, WAITING_MAX};
use crate::runner::KV_BLOCK_TOKENS;

impl Scheduler {
    /// Checks that no block is owned twice or lost, and that every queue keeps its bound.
    ///
    /// # Errors
    /// The broken invariant, in words.
    pub(crate) fn audit(&self) -> Result<(), String> {
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
        if self.flights.len() > stages + 1 {
            return Err(format!("{} micro-batches are on their way through {stages} stages", self.flights.len()));
        }
        let (running, waiting) = self.load();
        if running > RUNNING_MAX || waiting > WAITING_MAX || running + waiting != self.sequences.len() {
            return Err(format!("of {} sequences, {running} run and {waiting} wait", self.sequences.len()));
        }
        Ok(())
    }

    /// Checks one block. `owners` has each owner's history and the index of the block in it.
    fn audit_block(&self, block: u32, owners: &[(&[u32], usize)]) -> Result<(), String> {
        if self.ledger.owners(block) as usize != owners.len() {
            let counted = self.ledger.owners(block);
            return Err(format!("block {block} has {} owners: the ledger counts {counted}", owners.len()));
        }
        let beginning = |(history, index): &(&[u32], usize)| {
            history.get(..(index + 1) * KV_BLOCK_TOKENS as usize).map(<[u32]>::to_vec)
        };
        let first = owners.first().and_then(beginning);
        let alike = owners.iter().all(|owner| beginning(owner) == first);
        if owners.len() > 1 && (first.is_none() || !alike) {
            return Err(format!("block {block} is owned by sequences that do not begin alike"));
        }
        Ok(())
    }
}
