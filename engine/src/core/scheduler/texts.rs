//! Fills a micro-batch with the texts of a model whose tokens attend to those after them: each is sent whole, once, and
//! begins with nothing cached. Part of the scheduler, and as pure.

use std::time::Instant;

use schema::record::TEXT_BATCH_ROWS_MAX;

use super::Scheduler;
use super::batch_builder::BatchBuilder;
use crate::core::kv_ledger::CachedPrefix;
use crate::limits::{BATCH_ROWS_MAX, RUNNING_MAX};

// Stages take as many rows of short texts.
const _: () = assert!(BATCH_ROWS_MAX <= TEXT_BATCH_ROWS_MAX);

// === impl Scheduler ===

impl Scheduler {
    /// Adds waiting texts, first in rank first: one of any length, and more as long as there are `rows_max` rows at
    /// most. A text goes into a later micro-batch if this one cannot ask for its hidden states.
    pub(super) fn add_texts(&mut self, batch: &mut BatchBuilder, rows_max: u32, now: Instant) {
        for id in self.waiting.clone() {
            if self.running.len() >= RUNNING_MAX {
                break;
            }
            let Some(sequence) = self.sequences.get(&id).filter(|sequence| sequence.deadline > now) else { continue };
            let count = sequence.history.len() as u32;
            let is_too_long = !batch.slices.is_empty() && batch.rows + count > rows_max;
            let fits = sequence.tokens_within(0, count, batch.hidden_states_left) == count;
            if is_too_long || !fits || !self.ledger.has_room(&CachedPrefix::default(), count) {
                break;
            }
            self.begin(id, &CachedPrefix::default(), count, batch);
        }
    }
}
