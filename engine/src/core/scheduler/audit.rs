//! Invariants of a scheduler, for tests.

use std::collections::BTreeMap;

use super::Scheduler;
use crate::core::kv_ledger::BlockTable;
use crate::core::ledger::BlockLedger;
use crate::core::sequence::Sequence;
use crate::limits::{BATCH_ROWS_MAX, DRAFT_TOKENS_MAX, RUNNING_MAX, WAITING_MAX};
use crate::runner::KV_BLOCK_TOKENS;

impl Scheduler {
    /// Checks that every block is either free or owned, that only sequences with a common prefix own a block together,
    /// and that micro-batches in flight, running and waiting sequences keep their bounds.
    ///
    /// # Errors
    /// The broken invariant, in words.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let full = |sequence: &Sequence| (0, sequence.blocks.full.clone());
        self.audit_kind(&self.ledger.full, full).map_err(|broken| format!("of layers without a window, {broken}"))?;
        let window = |sequence: &Sequence| (sequence.blocks.window_first as usize, sequence.blocks.window.clone());
        self.audit_kind(&self.ledger.window, window).map_err(|broken| format!("of layers with a window, {broken}"))?;
        self.audit_windows()?;
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

    /// Checks that every sequence has exactly the blocks that rows from its first unsent token on read, and that no
    /// sequence keeps more than a window and a micro-batch take.
    fn audit_windows(&self) -> Result<(), String> {
        let kinds = self.ledger.kinds();
        let Some(window) = kinds.window() else { return Ok(()) };
        let blocks_max = (window + BATCH_ROWS_MAX + DRAFT_TOKENS_MAX as u32 + 1).div_ceil(KV_BLOCK_TOKENS) + 1;
        for sequence in self.sequences.values().filter(|sequence| !sequence.blocks.window.is_empty()) {
            let BlockTable { window_first, window, .. } = &sequence.blocks;
            let first = kinds.first_block(sequence.sent);
            if *window_first != first {
                return Err(format!("a sequence at {} has blocks from {window_first} on, not {first}", sequence.sent));
            }
            if window.len() as u32 > blocks_max {
                return Err(format!("a sequence keeps {} blocks of its window, more than {blocks_max}", window.len()));
            }
        }
        Ok(())
    }

    /// Checks the blocks of one kind. `table` has the index of a sequence's first block of that kind, and its blocks.
    fn audit_kind(&self, ledger: &BlockLedger, table: impl Fn(&Sequence) -> (usize, Vec<u32>)) -> Result<(), String> {
        // For each owned block, its owners: the tokens of each, and the index of the block in that sequence.
        let mut owners: BTreeMap<u32, Vec<(&[u32], usize)>> = BTreeMap::new();
        for sequence in self.sequences.values() {
            let (first, blocks) = table(sequence);
            for (index, block) in (first..).zip(blocks) {
                owners.entry(block).or_default().push((&sequence.history, index));
            }
        }
        for (block, owners) in &owners {
            audit_block(ledger, *block, owners)?;
        }
        let (total, free) = (ledger.total(), ledger.free());
        if free + owners.len() != total {
            return Err(format!("{free} blocks are free and {} are owned, of {total}", owners.len()));
        }
        Ok(())
    }
}

/// Checks that the ledger counts as many owners of `block` as there are. Several sequences may own it only if their
/// tokens fill it and are equal from position 0 to its end. `owners` has, for each owner, its tokens and the index
/// of the block among its blocks.
fn audit_block(ledger: &BlockLedger, block: u32, owners: &[(&[u32], usize)]) -> Result<(), String> {
    if ledger.owners(block) as usize != owners.len() {
        let counted = ledger.owners(block);
        return Err(format!("block {block} has {} owners: the ledger counts {counted}", owners.len()));
    }
    let prefix =
        |(history, index): &(&[u32], usize)| history.get(..(index + 1) * KV_BLOCK_TOKENS as usize).map(<[u32]>::to_vec);
    let first = owners.first().and_then(prefix);
    let alike = owners.iter().all(|owner| prefix(owner) == first);
    if owners.len() > 1 && (first.is_none() || !alike) {
        return Err(format!("block {block} is owned by sequences that do not begin alike"));
    }
    Ok(())
}
