//! Fills a micro-batch: with decoding sequences, then prompts, then waiting sequences. Part of the scheduler, and as
//! pure. It does not handle the micro-batch after that.

use std::time::Instant;

use schema::SequenceId;
use schema::frame::{HIDDEN_STATE_BYTES_MAX, RULE_BYTES_MAX, Slice};

use super::Scheduler;
use crate::core::kv_ledger::CachedPrefix;
use crate::core::sequence::Sequence;
use crate::limits::{
    BATCH_ROWS_MAX, BATCH_ROWS_SHARE_MIN, DECODES_MAX, FORCED_BATCH_ROWS_MAX, OVERTAKEN_MAX, PROMPT_ROWS_MIN,
    RUNNING_MAX, STRETCH_MAX,
};
use crate::runner::KV_BLOCK_TOKENS;

/// A micro-batch being filled.
#[derive(Debug, Default)]
pub(super) struct BatchBuilder {
    pub(super) slices: Vec<Slice>,
    /// For each slice, the number of draft tokens at its end.
    pub(super) drafts: Vec<usize>,
    pub(super) rows: u32,
    /// Bytes of the rules of its slices' positions, at most.
    rule_bytes: usize,
    /// Hidden states that it may still ask for.
    pub(super) hidden_states_left: u32,
    /// True for a lookahead micro-batch, which goes on from draft tokens in flight.
    pub(super) is_lookahead: bool,
}

// === impl Scheduler ===

impl Scheduler {
    /// Fills the next micro-batch of a pipeline of `stages` stages. It is empty if there is nothing to send, or nothing
    /// worth sending.
    pub(super) fn fill(&mut self, stages: usize, now: Instant) -> BatchBuilder {
        let state_bytes = size_of::<f32>() * self.shape.as_ref().map_or(1, |shape| shape.hidden.max(1) as usize);
        let hidden_states_left = (HIDDEN_STATE_BYTES_MAX / state_bytes) as u32;
        let mut batch = BatchBuilder { hidden_states_left, ..BatchBuilder::default() };
        // If a prompt were sent in one piece, one stage after the other would compute it while the other stages wait.
        let share = (BATCH_ROWS_MAX / stages as u32).max(BATCH_ROWS_SHARE_MIN);
        if self.is_bidirectional() {
            self.add_texts(&mut batch, share, now);
            return batch;
        }
        let streaming = self.running.iter().filter(|id| self.is_streaming(**id)).count();
        // The last place in the window hides the way back to the gateway. While all stages compute tokens of streamed
        // sequences, prompt tokens or a part of a group in that place would only delay those.
        let busy = self.flights.values().filter(|flight| flight.is_streaming).count() >= stages;
        self.add_decodes(&mut batch, stages, busy);
        if batch.slices.is_empty() && busy {
            return batch;
        }
        let rows_max =
            if streaming == 0 { share } else { self.rows_max_with(batch.rows, streaming, stages, now).min(share) };
        self.add_prompts(&mut batch, rows_max);
        self.start_waiting(&mut batch, rows_max, now);
        if batch.slices.is_empty() && self.speculates && self.flights.len() < stages {
            self.add_lookahead(&mut batch, stages);
        }
        batch
    }

    /// Adds decoding sequences, least recently scheduled first. While all stages are `busy`, a group that is not full
    /// waits for more sequences: a few large groups take less time than many small ones. Of the sequences that send
    /// forced tokens, too, those that would make it too large go first in a later one.
    fn add_decodes(&mut self, batch: &mut BatchBuilder, stages: usize, busy: bool) {
        let decodes_max = self.running.len().div_ceil(stages).clamp(1, DECODES_MAX);
        let ready = self.running.iter().filter(|id| self.sequences.get(id).is_some_and(Sequence::decodes)).count();
        if busy && ready < decodes_max {
            return;
        }
        let rows_max = if stages > 1 { FORCED_BATCH_ROWS_MAX } else { BATCH_ROWS_MAX };
        for id in self.running.clone() {
            // A sequence that was preempted meanwhile has nothing sent, and so decodes no more.
            let decodes = self.sequences.get(&id).is_some_and(Sequence::decodes);
            if batch.slices.len() == decodes_max || !batch.has_room_for_rules() || !decodes {
                continue;
            }
            let sendable = |sequence: &Sequence| {
                sequence.tokens_within(sequence.sent, sequence.unsent(), batch.hidden_states_left)
            };
            let window_rows = self.sequences.get(&id).map_or(0, |sequence| self.ledger.rows_max(sequence.sent));
            let count = self.sequences.get(&id).map_or(0, sendable).min(window_rows);
            let is_too_long = count > 1 && !batch.slices.is_empty() && batch.rows + count > rows_max;
            if count == 0 || is_too_long {
                continue;
            }
            let drafts = if decodes_max == 1 { self.drafts(id).min(window_rows - count) } else { 0 };
            if self.ensure_blocks(id, count + drafts, batch) {
                self.add(id, count, drafts, batch);
            } else if self.ensure_blocks(id, count, batch) {
                self.add(id, count, 0, batch);
            }
        }
    }

    /// Number of draft tokens to send along with `id`.
    fn drafts(&mut self, id: SequenceId) -> u32 {
        let Some(sequence) = self.sequences.get_mut(&id).filter(|_| self.speculates) else { return 0 };
        let Sequence { drafter, history, .. } = sequence;
        drafter.propose(history);
        let drafts = drafter.worth_sending(0, |rows| self.cost.seconds(rows)) as u32;
        // The token after the last draft token counts, too.
        drafts.min(sequence.tokens_left().saturating_sub(1))
    }

    /// Adds a lookahead: if fewer sequences run than there are stages, some stage is idle. It computes the tokens that
    /// follow if all draft tokens in flight are accepted. If not, its work is void, and the right tokens overwrite its
    /// keys and values.
    fn add_lookahead(&mut self, batch: &mut BatchBuilder, stages: usize) {
        if self.running.len() >= stages {
            return;
        }
        for id in &self.running {
            let Some(sequence) = self.sequences.get_mut(id).filter(|sequence| sequence.unsent() == 0) else { continue };
            let Sequence { drafter, history, unverified, .. } = sequence;
            let worth = drafter.worth_looking_ahead(history, *unverified, |rows| self.cost.seconds(rows)) as u32;
            // The micro-batch in flight returns one token more than it has draft tokens.
            let rows = worth.min(sequence.tokens_left().saturating_sub(sequence.unverified + 1));
            let position = sequence.sent + sequence.unverified;
            // No sequence is preempted for draft tokens.
            if rows == 0 || !self.ledger.allocate(&mut sequence.blocks, sequence.sent, position + rows) {
                continue;
            }
            let Some(slice) = sequence.lookahead(rows) else { continue };
            batch.drafts.push(slice.tokens.len() - 1);
            batch.rows = slice.count;
            batch.slices.push(slice);
            batch.is_lookahead = true;
            return;
        }
    }

    /// Most rows of a micro-batch that has `decodes` decoding rows. Its time may exceed the time of the usual
    /// decoding rows (of `streaming` streamed sequences over all stages) by the factor [`STRETCH_MAX`], or by more if
    /// more sequences wait for each streamed one.
    fn rows_max_with(&self, decodes: u32, streaming: usize, stages: usize, now: Instant) -> u32 {
        let usual_rows = streaming.div_ceil(stages) as u32;
        let Some(undisturbed) = self.cost.seconds(decodes.max(usual_rows)) else { return BATCH_ROWS_MAX };
        let stretch = STRETCH_MAX * (self.starting(now) as f64 / streaming as f64).max(1.0);
        let rows_max = self.cost.rows_within(undisturbed * stretch, BATCH_ROWS_MAX);
        rows_max.max(decodes + PROMPT_ROWS_MIN).min(BATCH_ROWS_MAX)
    }

    /// Number of sequences without a token yet that there is room for.
    fn starting(&self, now: Instant) -> usize {
        let begun = self.running.iter().filter(|id| !self.is_streaming(**id)).count();
        let (kinds, mut free) = (self.ledger.kinds(), self.ledger.free());
        let waiting = self.waiting.iter().filter_map(|id| self.sequences.get(id));
        let fits = |sequence: &&Sequence| {
            let needed = kinds.blocks_needed(sequence.history.len() as u32);
            let fits = needed.full <= free.full && needed.window <= free.window;
            if fits {
                (free.full, free.window) = (free.full - needed.full, free.window - needed.window);
            }
            fits
        };
        begun + waiting.filter(|sequence| sequence.deadline > now && self.can_end(sequence)).take_while(fits).count()
    }

    /// Adds running sequences with more than one token to send, first come first served.
    fn add_prompts(&mut self, batch: &mut BatchBuilder, rows_max: u32) {
        let unsent = |id: &SequenceId| {
            self.sequences.get(id).filter(|sequence| sequence.unsent() > 0 && !batch.has(*id)).map(Sequence::rank)
        };
        let mut order: Vec<_> = self.running.iter().filter_map(unsent).collect();
        order.sort_unstable();
        for (_, id) in order {
            let still = self.running.contains(&id);
            let Some(sequence) = self.sequences.get(&id).filter(|sequence| still && !sequence.decodes()) else {
                continue;
            };
            let count = sequence.unsent().min(rows_max.saturating_sub(batch.rows));
            let count = count.min(self.ledger.rows_max(sequence.sent));
            let count = sequence.tokens_within(sequence.sent, count, batch.hidden_states_left);
            if count > 0 && batch.has_room_for_rules() && self.ensure_blocks(id, count, batch) {
                self.add(id, count, 0, batch);
            }
        }
    }

    /// Gives waiting sequences their first blocks as long as there are free ones. No sequence is preempted for them.
    fn start_waiting(&mut self, batch: &mut BatchBuilder, rows_max: u32, now: Instant) {
        for id in self.waiting.clone() {
            let rows_left = rows_max.saturating_sub(batch.rows);
            if rows_left == 0 || self.running.len() >= RUNNING_MAX || !batch.has_room_for_rules() {
                break;
            }
            let is_usable =
                |sequence: &&Sequence| sequence.deadline > now && sequence.broken.is_none() && self.can_end(sequence);
            if self.sequences.get(&id).filter(is_usable).is_none() {
                continue;
            }
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            let found = sequence.cached_prefix(&self.ledger);
            let Some(sequence) = self.sequences.get(&id) else { continue };
            if self.computes_next_block(batch, sequence.cacheable(), found.len) {
                continue; // In the next micro-batch it can begin with the block computed here.
            }
            let sent = found.tokens();
            let count = (sequence.history.len() as u32 - sent).min(rows_left).min(self.ledger.rows_max(sent));
            let count = sequence.tokens_within(sent, count, batch.hidden_states_left);
            if count == 0 {
                continue; // The next micro-batch can ask for its hidden states.
            }
            if !self.ledger.has_room(&found, sent + count) {
                break;
            }
            self.begin(id, &found, count, batch);
        }
    }

    /// Begins a waiting sequence with the cached prefix `found` and `count` tokens after it, for which there is room.
    pub(super) fn begin(&mut self, id: SequenceId, found: &CachedPrefix, count: u32, batch: &mut BatchBuilder) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        sequence.start_with(found, &mut self.ledger);
        let sent = found.tokens();
        let taken = self.ledger.allocate(&mut sequence.blocks, sent, sent + count);
        debug_assert!(taken, "free blocks cannot be taken");
        self.waiting.retain(|other| *other != id);
        self.overtake(id);
        self.running.push_back(id);
        self.add(id, count, 0, batch);
    }

    /// True if a sequence in `batch` computes the block of `cacheable` that follows the `found` cached ones.
    fn computes_next_block(&self, batch: &BatchBuilder, cacheable: &[u32], found: usize) -> bool {
        let end = (found + 1) * KV_BLOCK_TOKENS as usize;
        let Some(beginning) = cacheable.get(..end) else { return false };
        batch.slices.iter().zip(&batch.drafts).any(|(slice, drafts)| {
            let other = self.sequences.get(&slice.sequence);
            let computed = (slice.position + slice.count) as usize - drafts;
            computed >= end && other.is_some_and(|other| other.history.starts_with(beginning))
        })
    }

    /// Counts that `id` overtakes the waiting sequences that came before it. A sequence that is overtaken too often
    /// goes before all others.
    fn overtake(&mut self, id: SequenceId) {
        let older: Vec<_> = self.waiting.iter().copied().filter(|other| *other < id).collect();
        for other in older {
            let Some(sequence) = self.sequences.get_mut(&other) else { continue };
            sequence.overtaken += 1;
            if sequence.overtaken == OVERTAKEN_MAX {
                sequence.priority = i32::MIN;
                self.waiting.retain(|waiting| *waiting != other);
                self.enqueue(other);
            }
        }
    }

    /// Ensures that `id` has blocks for `count` more tokens. Preempts sequences behind it in rank if necessary.
    fn ensure_blocks(&mut self, id: SequenceId, count: u32, batch: &BatchBuilder) -> bool {
        loop {
            let Some(sequence) = self.sequences.get_mut(&id) else { return false };
            let (sent, end) = (sequence.sent, sequence.sent + count);
            if self.ledger.allocate(&mut sequence.blocks, sent, end) {
                return true;
            }
            let own = sequence.rank();
            let behind = |other: &SequenceId| {
                let rank = self.sequences.get(other)?.rank();
                (rank > own && !batch.has(*other)).then_some(rank)
            };
            let Some((_, victim)) = self.running.iter().filter_map(behind).max() else { return false };
            self.preempt(victim);
        }
    }

    pub(super) fn preempt(&mut self, id: SequenceId) {
        self.counts.preempted += 1;
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        self.ledger.release(&mut sequence.blocks);
        sequence.restart();
        self.running.retain(|other| *other != id);
        self.enqueue(id);
    }

    /// Adds `count` tokens of `id` and up to `drafts` draft tokens to the micro-batch. The sequence is now the most
    /// recently scheduled one.
    fn add(&mut self, id: SequenceId, count: u32, drafts: u32, batch: &mut BatchBuilder) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let (slice, drafts) = sequence.slice(count, drafts);
        batch.rows += slice.count;
        batch.rule_bytes += slice.rule.position_bytes();
        batch.hidden_states_left = batch.hidden_states_left.saturating_sub(slice.hidden_states.len() as u32);
        batch.slices.push(slice);
        batch.drafts.push(drafts);
        self.running.retain(|other| *other != id);
        self.running.push_back(id);
    }
}

// === impl BatchBuilder ===

impl BatchBuilder {
    /// True if the rules of one more slice fit, however large they are.
    fn has_room_for_rules(&self) -> bool {
        self.rule_bytes < RULE_BYTES_MAX / 2
    }

    fn has(&self, id: SequenceId) -> bool {
        self.slices.iter().any(|slice| slice.sequence == id)
    }
}
