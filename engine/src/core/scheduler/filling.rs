//! What goes into a micro-batch: decoding sequences, then prompts, then those that begin. Part of the scheduler, and as
//! pure; knows nothing of what becomes of the micro-batch.

use std::time::Instant;

use schema::SequenceId;
use schema::frame::Slice;

use super::Scheduler;
use crate::core::sequence::Sequence;
use crate::limits::{
    BATCH_ROWS_MAX, BATCH_ROWS_SHARE_MIN, DECODES_MAX, OVERTAKEN_MAX, PROMPT_ROWS_MIN, RUNNING_MAX, STRETCH_MAX,
};
use crate::runner::KV_BLOCK_TOKENS;

/// A micro-batch being filled.
#[derive(Debug, Default)]
pub(super) struct Filling {
    pub(super) slices: Vec<Slice>,
    /// Of each slice, how many of its last tokens are guesses.
    pub(super) drafts: Vec<usize>,
    pub(super) rows: u32,
    /// It goes on from guesses that are on their way.
    pub(super) is_ahead: bool,
}

// === impl Scheduler ===

impl Scheduler {
    /// Fills the next micro-batch of a pipeline of so many stages; empty when there is nothing to send, or nothing worth it.
    pub(super) fn fill(&mut self, stages: usize, now: Instant) -> Filling {
        let mut filling = Filling::default();
        let readers = self.running.iter().filter(|id| self.is_read(**id)).count();
        // The last place in the window hides the way back to here. Filled with prompt tokens or a part of a group while all
        // stages work for readers, it would only make those wait.
        let busy = self.flights.values().filter(|flight| flight.is_read).count() >= stages;
        self.add_decodes(&mut filling, stages, busy);
        if filling.slices.is_empty() && busy {
            return filling;
        }
        // A prompt in one piece would be computed by one stage after the other, while the others wait.
        let share = (BATCH_ROWS_MAX / stages as u32).max(BATCH_ROWS_SHARE_MIN);
        let rows_max =
            if readers == 0 { share } else { self.rows_beside(filling.rows, readers, stages, now).min(share) };
        self.add_prompts(&mut filling, rows_max);
        self.start_waiting(&mut filling, rows_max, now);
        if filling.slices.is_empty() && self.speculates && self.flights.len() < stages {
            self.add_ahead(&mut filling, stages);
        }
        filling
    }

    /// Decoding sequences, those first that were scheduled longest ago. While all stages are `busy`, a group that is not full
    /// waits for others to join it: a few large groups take less time than many small ones.
    fn add_decodes(&mut self, filling: &mut Filling, stages: usize, busy: bool) {
        let decodes_max = self.running.len().div_ceil(stages).clamp(1, DECODES_MAX);
        let ready = self.running.iter().filter(|id| self.sequences.get(id).is_some_and(Sequence::decodes)).count();
        if busy && ready < decodes_max {
            return;
        }
        for id in self.running.clone() {
            // Who was preempted meanwhile has nothing sent, and so decodes no more.
            let decodes = self.sequences.get(&id).is_some_and(Sequence::decodes);
            if filling.slices.len() == decodes_max || !decodes {
                continue;
            }
            let drafts = if decodes_max == 1 { self.drafts(id) } else { 0 };
            if self.provide(id, 1 + drafts, filling) {
                self.add(id, 1, drafts, filling);
            } else if self.provide(id, 1, filling) {
                self.add(id, 1, 0, filling);
            }
        }
    }

    /// How many guesses to send along with `id`.
    fn drafts(&mut self, id: SequenceId) -> u32 {
        let Some(sequence) = self.sequences.get_mut(&id).filter(|_| self.speculates) else { return 0 };
        let Sequence { drafter, history, .. } = sequence;
        drafter.guess(history);
        let drafts = drafter.worth_sending(0, |rows| self.cost.seconds(rows)) as u32;
        // The token after the last guess counts, too.
        drafts.min(sequence.tokens_left().saturating_sub(1))
    }

    /// Where fewer sequences run than there are stages, some stage has nothing to do: it computes what follows if all guesses that
    /// are on their way come true. If not, that was for nothing, and what is right overwrites it.
    fn add_ahead(&mut self, filling: &mut Filling, stages: usize) {
        if self.running.len() >= stages {
            return;
        }
        for id in &self.running {
            let Some(sequence) = self.sequences.get_mut(id).filter(|sequence| sequence.unsent() == 0) else { continue };
            let Sequence { drafter, history, ahead, .. } = sequence;
            let worth = drafter.worth_sending_ahead(history, *ahead, |rows| self.cost.seconds(rows)) as u32;
            // What is on its way brings a token more than there are guesses in it.
            let rows = worth.min(sequence.tokens_left().saturating_sub(sequence.ahead + 1));
            let position = sequence.sent + sequence.ahead;
            let wanted = (position + rows).div_ceil(KV_BLOCK_TOKENS) as usize;
            let missing = wanted.saturating_sub(sequence.blocks.len());
            // Nobody gives blocks back for a guess.
            if rows == 0 || !self.ledger.take(missing, &mut sequence.blocks) {
                continue;
            }
            let tokens = sequence.drafter.guessed(sequence.ahead, rows).collect();
            filling.slices.push(sequence.slice(position, tokens, (0..rows).collect()));
            filling.drafts.push(rows as usize - 1);
            filling.rows = rows;
            filling.is_ahead = true;
            return;
        }
    }

    /// Rows a micro-batch may have beside `decodes` that are in it: no more than stretch the time of one with as many
    /// decodes as are usual among `readers`; further, the more wait for each who reads.
    fn rows_beside(&self, decodes: u32, readers: usize, stages: usize, now: Instant) -> u32 {
        let usual = readers.div_ceil(stages) as u32;
        let Some(undisturbed) = self.cost.seconds(decodes.max(usual)) else { return BATCH_ROWS_MAX };
        let stretch = STRETCH_MAX * (self.beginners(now) as f64 / readers as f64).max(1.0);
        let rows_max = self.cost.rows_within(undisturbed * stretch, BATCH_ROWS_MAX);
        rows_max.max(decodes + PROMPT_ROWS_MIN).min(BATCH_ROWS_MAX)
    }

    /// Sequences that nobody reads yet and that there is room for.
    fn beginners(&self, now: Instant) -> usize {
        let begun = self.running.iter().filter(|id| !self.is_read(**id)).count();
        let mut free = self.ledger.free();
        let waiting = self.waiting.iter().filter_map(|id| self.sequences.get(id));
        let fits = |sequence: &&Sequence| {
            let blocks = sequence.history.len().div_ceil(KV_BLOCK_TOKENS as usize);
            free.checked_sub(blocks).inspect(|left| free = *left).is_some()
        };
        begun + waiting.filter(|sequence| sequence.deadline > now).take_while(fits).count()
    }

    /// Running sequences that have more than a token to send, first come first served.
    fn add_prompts(&mut self, filling: &mut Filling, rows_max: u32) {
        let unsent = |id: &SequenceId| {
            self.sequences.get(id).filter(|sequence| sequence.unsent() > 0 && !filling.has(*id)).map(Sequence::rank)
        };
        let mut order: Vec<_> = self.running.iter().filter_map(unsent).collect();
        order.sort_unstable();
        for (_, id) in order {
            let still = self.running.contains(&id);
            let Some(sequence) = self.sequences.get(&id).filter(|sequence| still && !sequence.decodes()) else {
                continue;
            };
            let count = sequence.unsent().min(rows_max.saturating_sub(filling.rows));
            if count > 0 && self.provide(id, count, filling) {
                self.add(id, count, 0, filling);
            }
        }
    }

    /// Gives waiting sequences their first blocks as long as there are free ones: nobody is preempted for them.
    fn start_waiting(&mut self, filling: &mut Filling, rows_max: u32, now: Instant) {
        for id in self.waiting.clone() {
            let rows_left = rows_max.saturating_sub(filling.rows);
            if rows_left == 0 || self.running.len() >= RUNNING_MAX {
                break;
            }
            let Some(sequence) = self.sequences.get(&id).filter(|sequence| sequence.deadline > now) else { continue };
            let found = sequence.beginning(&self.ledger);
            if self.computes_next_block(filling, &sequence.history, found.len()) {
                continue; // In the next micro-batch it can begin with what this one computes.
            }
            let sent = found.len() as u32 * KV_BLOCK_TOKENS;
            let count = (sequence.history.len() as u32 - sent).min(rows_left);
            let blocks = (sent + count).div_ceil(KV_BLOCK_TOKENS) as usize - found.len();
            if blocks > self.ledger.free_beside(&found) {
                break;
            }
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            sequence.begin(&found, &mut self.ledger);
            let taken = self.ledger.take(blocks, &mut sequence.blocks);
            debug_assert!(taken, "free blocks cannot be taken");
            self.waiting.retain(|other| *other != id);
            self.overtake(id);
            self.running.push_back(id);
            self.add(id, count, 0, filling);
        }
    }

    /// Whether a sequence in `filling` computes the block of `history` that follows the `found` known ones.
    fn computes_next_block(&self, filling: &Filling, history: &[u32], found: usize) -> bool {
        let end = (found + 1) * KV_BLOCK_TOKENS as usize;
        let Some(beginning) = history[..history.len() - 1].get(..end) else { return false };
        filling.slices.iter().zip(&filling.drafts).any(|(slice, drafts)| {
            let other = self.sequences.get(&slice.sequence);
            let computed = (slice.position + slice.count) as usize - drafts;
            computed >= end && other.is_some_and(|other| other.history.starts_with(beginning))
        })
    }

    /// Counts for those who came before `id` and still wait; who is overtaken too often goes before all others.
    fn overtake(&mut self, id: SequenceId) {
        let older: Vec<_> = self.waiting.iter().copied().filter(|other| *other < id).collect();
        for other in older {
            let Some(sequence) = self.sequences.get_mut(&other) else { continue };
            sequence.overtaken += 1;
            if sequence.overtaken == OVERTAKEN_MAX {
                sequence.priority = i32::MIN;
                self.waiting.retain(|waiting| *waiting != other);
                self.wait(other);
            }
        }
    }

    /// Makes sure that `id` has blocks for `count` more tokens, from those behind it in rank if it must be.
    fn provide(&mut self, id: SequenceId, count: u32, filling: &Filling) -> bool {
        loop {
            let Some(sequence) = self.sequences.get_mut(&id) else { return false };
            let wanted = (sequence.sent + count).div_ceil(KV_BLOCK_TOKENS) as usize;
            let missing = wanted.saturating_sub(sequence.blocks.len());
            if self.ledger.take(missing, &mut sequence.blocks) {
                return true;
            }
            let own = sequence.rank();
            let behind = |other: &SequenceId| {
                let rank = self.sequences.get(other)?.rank();
                (rank > own && !filling.has(*other)).then_some(rank)
            };
            let Some((_, victim)) = self.running.iter().filter_map(behind).max() else { return false };
            self.preempt(victim);
        }
    }

    pub(super) fn preempt(&mut self, id: SequenceId) {
        self.counts.preempted += 1;
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        self.ledger.give_back(&mut sequence.blocks);
        sequence.restart();
        self.running.retain(|other| *other != id);
        self.wait(id);
    }

    /// Puts `count` tokens of `id` and `drafts` guesses into the micro-batch; it is now the last that was scheduled.
    fn add(&mut self, id: SequenceId, count: u32, drafts: u32, filling: &mut Filling) {
        let Some(sequence) = self.sequences.get(&id) else { return };
        let end = sequence.sent + count;
        let known = sequence.history.get(sequence.sent as usize..end as usize).unwrap_or_default();
        let tokens: Vec<u32> = known.iter().copied().chain(sequence.drafter.guessed(0, drafts)).collect();
        let (rows, drafts) = (tokens.len() as u32, tokens.len() - known.len());
        let complete = end as usize == sequence.history.len();
        let logits = if complete { (count - 1..rows).collect() } else { Vec::new() };
        filling.slices.push(sequence.slice(sequence.sent, tokens, logits));
        filling.drafts.push(drafts);
        filling.rows += rows;
        self.running.retain(|other| *other != id);
        self.running.push_back(id);
    }
}

// === impl Filling ===

impl Filling {
    fn has(&self, id: SequenceId) -> bool {
        self.slices.iter().any(|slice| slice.sequence == id)
    }
}
