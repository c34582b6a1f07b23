//! The state of one sequence in the scheduler: its tokens, the part of them that was sent to the pipeline, its blocks,
//! and its timings.

use std::time::Instant;

use schema::frame::{Slice, Spent};
use schema::{Attempt, SequenceId};

use super::draft::Drafter;
use super::ledger::{BlockLedger, PrefixId};
use crate::generate::{Finish, Request, StageTime, Timings, compute_share};
use crate::runner::KV_BLOCK_TOKENS;

/// One sequence, from admission to its last token.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    pub(crate) attempt: Attempt,
    pub(crate) request: Request,
    /// The prompt and every token generated so far.
    pub(crate) history: Vec<u32>,
    /// Number of tokens of the history that were sent to the pipeline in this attempt.
    pub(crate) sent: u32,
    /// Number of draft tokens that were sent as the continuation of the history, and which the pipeline has not yet
    /// verified.
    pub(crate) unverified: u32,
    /// Blocks of keys and values that it owns in this attempt, some perhaps together with other sequences.
    pub(crate) blocks: Vec<u32>,
    /// The prefix of its first blocks that is in the prefix cache: the number of these blocks, and the prefix's id.
    cached_prefix: (usize, PrefixId),
    /// Number of prompt tokens that were in the prefix cache when its first attempt began. `None` until then, and again
    /// once [`Self::take_cached_tokens`] has returned it.
    cached_tokens: Option<u32>,
    has_started: bool,
    /// Proposes its draft tokens.
    pub(crate) drafter: Drafter,
    /// The request's priority. The sequence with the smaller value goes first.
    pub(crate) priority: i32,
    /// Number of sequences that were admitted after it and began before it.
    pub(crate) overtaken: u32,
    /// Number of times that a stage refused its work.
    pub(crate) refusals: u32,
    pub(crate) deadline: Instant,
    clock: Clock,
    stages: Vec<StageTime>,
}

#[derive(Debug)]
struct Clock {
    admitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
}

/// The label of a stage in a sequence's timings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageLabel {
    /// The stage's name.
    pub stage: String,
    /// `[first, one past last]` layer.
    pub layers: [u32; 2],
}

// === impl Sequence ===

impl Sequence {
    pub(crate) fn new(id: SequenceId, request: Request, now: Instant) -> Self {
        Self {
            id,
            attempt: Attempt(0),
            history: request.prompt.clone(),
            sent: 0,
            unverified: 0,
            blocks: Vec::new(),
            cached_prefix: (0, PrefixId::EMPTY),
            cached_tokens: None,
            has_started: false,
            drafter: Drafter::default(),
            priority: request.priority,
            overtaken: 0,
            refusals: 0,
            deadline: now + request.deadline,
            clock: Clock { admitted: now, started: None, first_token: None, last_token: None },
            stages: Vec::new(),
            request,
        }
    }

    /// Number of tokens of the history that were not sent yet.
    pub(crate) fn unsent(&self) -> u32 {
        self.history.len() as u32 - self.sent
    }

    /// True if its next step sends a single generated token.
    pub(crate) fn decodes(&self) -> bool {
        self.unsent() == 1 && self.sent > 0
    }

    /// True if its client has tokens already and would notice a delay of the next one.
    pub(crate) fn is_streaming(&self) -> bool {
        self.history.len() > self.request.prompt.len() && self.unsent() <= 1
    }

    /// Number of tokens that it may still get.
    pub(crate) fn tokens_left(&self) -> u32 {
        let made = (self.history.len() - self.request.prompt.len()) as u32;
        self.request.tokens_max.saturating_sub(made)
    }

    /// Its rank among sequences: the smaller one goes first.
    pub(crate) fn rank(&self) -> (i32, SequenceId) {
        (self.priority, self.id)
    }

    /// Starts a new attempt: its history is sent again. The caller has released its blocks.
    pub(crate) fn restart(&mut self) {
        self.attempt = self.attempt.next();
        (self.sent, self.unverified) = (0, 0);
        self.cached_prefix = (0, PrefixId::EMPTY);
    }

    /// The cached blocks that it can begin with. Its last token is always computed, because that returns the next one.
    pub(crate) fn cached_blocks(&self, ledger: &BlockLedger) -> Vec<u32> {
        ledger.lookup(&self.history[..self.history.len() - 1])
    }

    /// Begins an attempt with the cached blocks `found`: it becomes an owner of them, and their tokens count as sent.
    pub(crate) fn start_with(&mut self, found: &[u32], ledger: &mut BlockLedger) {
        self.cached_prefix = (found.len(), ledger.share(found, &mut self.blocks));
        self.sent = found.len() as u32 * KV_BLOCK_TOKENS;
        if !std::mem::replace(&mut self.has_started, true) {
            self.cached_tokens = Some(self.sent);
        }
    }

    /// The number of prompt tokens that were cached when its first attempt began. Later calls return `None`.
    pub(crate) fn take_cached_tokens(&mut self) -> Option<u32> {
        self.cached_tokens.take()
    }

    /// Inserts the blocks that its sent tokens fill into the prefix cache. Their keys and values may not be computed
    /// yet. Micro-batches that are sent from now on can use them all the same, because each stage computes
    /// micro-batches in the order in which they were sent.
    pub(crate) fn insert_prefixes(&mut self, ledger: &mut BlockLedger) {
        let (mut count, mut prefix) = self.cached_prefix;
        let full = self.history[..self.sent as usize].as_chunks().0;
        for (number, tokens) in self.blocks.iter().zip(full).skip(count) {
            prefix = ledger.insert(*number, prefix, tokens);
            count += 1;
        }
        self.cached_prefix = (count, prefix);
    }

    /// Its part of a micro-batch: `tokens`, the first of them at `position`. `logits` has the offsets in `tokens` after
    /// which the last stage chooses the next token.
    pub(crate) fn slice(&self, position: u32, tokens: Vec<u32>, logits: Vec<u32>) -> Slice {
        Slice {
            sequence: self.id,
            attempt: self.attempt,
            position,
            count: tokens.len() as u32,
            tokens,
            blocks: self.blocks.clone(),
            logits,
            sampling: self.request.sampling,
        }
    }

    pub(crate) fn started(&mut self, now: Instant) {
        self.clock.started.get_or_insert(now);
    }

    /// Appends a generated token. Returns the reason if that ends the sequence.
    pub(crate) fn push(&mut self, token: u32, now: Instant) -> Option<Finish> {
        self.history.push(token);
        self.drafter.observe(token);
        self.refusals = 0;
        self.clock.first_token.get_or_insert(now);
        self.clock.last_token = Some(now);
        if self.request.stop_tokens.contains(&token) {
            Some(Finish::Stop)
        } else if self.tokens_left() == 0 {
            Some(Finish::Length)
        } else {
            None
        }
    }

    /// Adds the stages' times for `rows` rows of this sequence.
    pub(crate) fn add_stage_times(&mut self, spent: &[Spent], labels: &[StageLabel], rows: u32) {
        for spent in spent {
            let Some(label) = labels.get(spent.slot as usize) else { continue };
            let found = self.stages.iter_mut().find(|time| time.stage == label.stage && time.layers == label.layers);
            let compute = compute_share(spent, rows);
            if let Some(time) = found {
                time.rows += u64::from(rows);
                time.compute += compute;
            } else {
                let (stage, layers) = (label.stage.clone(), label.layers);
                self.stages.push(StageTime { stage, layers, rows: u64::from(rows), compute });
            }
        }
    }

    pub(crate) fn timings(&self, now: Instant) -> Timings {
        let Clock { admitted, started, first_token, last_token } = self.clock;
        let started = started.unwrap_or(now);
        let first_token = first_token.unwrap_or(now);
        Timings {
            queued: started.saturating_duration_since(admitted),
            prefill: first_token.saturating_duration_since(started),
            decode: last_token.unwrap_or(now).saturating_duration_since(first_token),
            attempts: self.attempt.0 + 1,
            stages: self.stages.clone(),
        }
    }
}
