//! The state of one sequence in the scheduler: its tokens, the part of them that was sent to the pipeline, its blocks,
//! and its timings.

use std::time::{Duration, Instant};

use schema::frame::{HiddenState, Slice, Spent};
use schema::{Attempt, SequenceId};

use super::draft::Drafter;
use super::embedding::PromptEmbedding;
use super::flight::RowsInFlight;
use super::kv_ledger::{BlockTable, CachedPrefix, KvLedger};
use super::prefix_hash::PrefixHash;
use super::token_rules::{Continuation, TokenRules};
use crate::generate::{
    ConstraintError, Finish, Request, ScoredToken, SequencePhase, SequenceReport, StageTime, Timings, TokenEvent,
    compute_share,
};
use crate::limits::FORCED_ROWS_MAX;
use crate::runner::KV_BLOCK_TOKENS;

/// One sequence, from admission to its last token.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    pub(crate) attempt: Attempt,
    pub(crate) request: Request,
    /// The prompt and every token generated so far. Tokens that the grammar forces count as generated.
    pub(crate) history: Vec<u32>,
    /// Number of tokens of the history that the client knows, with their scores if it asks for these.
    reported: u32,
    /// The reason if no further token is chosen. The sequence ends once all tokens are reported.
    ends: Option<Finish>,
    /// Makes the rules by which its tokens are chosen.
    rules: TokenRules,
    /// The embedding of its prompt, if that is what it is for. Then no token is chosen or scored.
    embedding: Option<PromptEmbedding>,
    /// The error of its grammar. The sequence is to fail.
    pub(crate) broken: Option<ConstraintError>,
    /// Number of tokens of the history that were sent to the pipeline in this attempt.
    pub(crate) sent: u32,
    /// Number of draft tokens that were sent as the continuation of the history, and which the pipeline has not yet
    /// verified.
    pub(crate) unverified: u32,
    /// Blocks of keys and values that it owns in this attempt, some perhaps together with other sequences.
    pub(crate) blocks: BlockTable,
    /// Number of its first blocks that it has inserted into the prefix cache in this attempt, or found there.
    blocks_cached: usize,
    /// The prefixes of the history that end with a block, the shortest first, as far as they were needed.
    prefixes: Vec<PrefixHash>,
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
    pub(crate) fn new(id: SequenceId, mut request: Request, now: Instant) -> Self {
        if request.pooling.is_some() {
            request.tokens_max = 0;
        }
        // The first token of a prompt follows nothing, so it has no score.
        let reported = if request.tokens.scores_prompt { 1 } else { request.prompt.len() as u32 };
        let mut sequence = Self {
            id,
            attempt: Attempt(0),
            history: request.prompt.clone(),
            reported,
            ends: (request.tokens_max == 0).then_some(Finish::Length),
            rules: TokenRules::new(&request),
            embedding: request.pooling.map(|pooling| PromptEmbedding::new(pooling, request.prompt.len() as u32)),
            broken: None,
            sent: 0,
            unverified: 0,
            blocks: BlockTable::default(),
            blocks_cached: 0,
            prefixes: Vec::new(),
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
        };
        if sequence.ends.is_none() {
            sequence.advance();
        }
        sequence
    }

    /// Number of tokens of the history that were not sent yet.
    pub(crate) fn unsent(&self) -> u32 {
        self.history.len() as u32 - self.sent
    }

    /// True if its next step sends the last token, or a generated token with those that the grammar forces after it.
    pub(crate) fn decodes(&self) -> bool {
        let generated =
            self.sent as usize >= self.request.prompt.len() && (1..=FORCED_ROWS_MAX).contains(&self.unsent());
        self.sent > 0 && (self.unsent() == 1 || generated)
    }

    /// True if its client has tokens already and would notice a delay of the next one.
    pub(crate) fn is_streaming(&self) -> bool {
        self.history.len() > self.request.prompt.len() && self.unsent() <= FORCED_ROWS_MAX
    }

    /// Number of tokens that it may still get.
    pub(crate) fn tokens_left(&self) -> u32 {
        let made = (self.history.len() - self.request.prompt.len()) as u32;
        self.request.tokens_max.saturating_sub(made)
    }

    /// Its length when it ends, if nothing stops it before, in tokens.
    pub(crate) fn tokens_at_end(&self) -> u32 {
        (self.history.len() as u32).saturating_add(self.tokens_left())
    }

    /// Its rank among sequences: the smaller one goes first.
    pub(crate) fn rank(&self) -> (i32, SequenceId) {
        (self.priority, self.id)
    }

    /// Starts a new attempt: its history is sent again. The caller has released its blocks.
    pub(crate) fn restart(&mut self) {
        self.attempt = self.attempt.next();
        (self.sent, self.unverified) = (0, 0);
        self.blocks_cached = 0;
    }

    /// The cached prefix that it can begin with. Its last token is always computed, because that returns the next one,
    /// and so are the tokens before those that are to be scored, and those whose hidden states are missing.
    pub(crate) fn cached_prefix(&mut self, ledger: &KvLedger) -> CachedPrefix {
        let blocks = self.cacheable().len() / KV_BLOCK_TOKENS as usize;
        PrefixHash::extend(&mut self.prefixes, &self.history);
        ledger.lookup(&self.prefixes[..blocks])
    }

    /// The tokens that need not be computed if they are cached.
    pub(crate) fn cacheable(&self) -> &[u32] {
        let computed = self.history.len() - 1;
        let known = match &self.embedding {
            Some(embedding) => embedding.missing().start as usize,
            None if self.scores_at(self.reported) => (self.reported - 1) as usize,
            None => computed,
        };
        &self.history[..known.min(computed)]
    }

    /// True if the token at `position` of the history is reported with its score, which the last stage computes.
    fn scores_at(&self, position: u32) -> bool {
        let tokens = &self.request.tokens;
        let is_prompt = (position as usize) < self.request.prompt.len();
        // With the prompt's scores come those of the answer: so the scored positions of a slice are next to each other.
        let wanted = tokens.scores_prompt || (!is_prompt && tokens.alternatives.is_some());
        wanted && self.embedding.is_none() && position >= self.reported && (position as usize) < self.history.len()
    }

    /// Begins an attempt with the cached prefix `found`: it becomes an owner of its blocks, and its tokens count as
    /// sent.
    pub(crate) fn start_with(&mut self, found: &CachedPrefix, ledger: &mut KvLedger) {
        ledger.share(found, &mut self.blocks);
        self.blocks_cached = found.len;
        self.sent = found.tokens();
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
    /// micro-batches in the order in which they were sent. For the same reason the blocks before the window of the next
    /// token are released. Returns the number of these.
    pub(crate) fn commit_blocks(&mut self, ledger: &mut KvLedger) -> u64 {
        PrefixHash::extend(&mut self.prefixes, &self.history);
        let full = self.sent as usize / KV_BLOCK_TOKENS as usize;
        for (index, prefix) in self.prefixes.iter().enumerate().take(full).skip(self.blocks_cached) {
            ledger.insert(&self.blocks, index, *prefix);
        }
        self.blocks_cached = full.max(self.blocks_cached);
        ledger.release_before(self.sent, &mut self.blocks)
    }

    /// Most of the `count` tokens from `position` on that have at most `states` hidden states to return.
    pub(crate) fn tokens_within(&self, position: u32, count: u32, states: u32) -> u32 {
        self.embedding.as_ref().map_or(count, |embedding| embedding.tokens_within(position, count, states))
    }

    /// Its part of a micro-batch: the next `count` tokens of the history and, if they are its last, up to `drafts`
    /// draft tokens. The last stage scores the tokens of the history that are to be reported with a score, and chooses
    /// the next one after the history and after each draft token. Returns the number of draft tokens, too.
    pub(crate) fn slice(&mut self, count: u32, drafts: u32) -> (Slice, usize) {
        let end = self.sent + count;
        let mut tokens = self.history.get(self.sent as usize..end as usize).unwrap_or_default().to_vec();
        let scored_from = (self.sent + 1..=end).find(|position| self.scores_at(*position));
        let scored = scored_from.map_or(0..0, |from| from..(end + 1).min(self.history.len() as u32));
        let mut logits: Vec<u32> = scored.clone().map(|position| position - 1 - self.sent).collect();
        let scored = self.history[scored.start as usize..scored.end as usize].to_vec();
        let (mut positions, mut accepted) = (Vec::new(), 0);
        if end as usize == self.history.len() && self.ends.is_none() {
            let drafts: Vec<u32> = self.drafter.tokens(0, drafts).collect();
            let assumed = self.rules.assume(&self.history, &drafts);
            accepted = assumed.count - 1;
            positions = assumed.positions;
            tokens.extend_from_slice(&drafts[..accepted]);
            logits.extend(count - 1..count + accepted as u32);
        }
        let rule = self.rules.rule(positions);
        let missing = self.embedding.as_ref().map_or(0..0, |embedding| embedding.missing_in(self.sent..end));
        let hidden_states = missing.map(|position| position - self.sent).collect();
        let slice = Slice { tokens, logits, scored, rule, hidden_states, ..Slice::empty(self.id) };
        (self.slice_of(self.sent, slice), accepted)
    }

    /// Its part of a lookahead micro-batch: up to `count` draft tokens after those in flight. `None` if none of them
    /// can follow.
    pub(crate) fn lookahead(&mut self, count: u32) -> Option<Slice> {
        let known = self.unverified as usize;
        let drafts: Vec<u32> = self.drafter.tokens(0, self.unverified + count).collect();
        let assumed = self.rules.assume(&self.history, &drafts);
        // The position after the history and those after the draft tokens in flight are asked for already.
        let count = (assumed.count - 1).checked_sub(known).filter(|count| *count > 0)?;
        let tokens = drafts[known..known + count].to_vec();
        let positions = assumed.positions.into_iter().skip(known + 1).take(count).collect();
        let (logits, rule) = ((0..count as u32).collect(), self.rules.rule(positions));
        Some(self.slice_of(self.sent + self.unverified, Slice { tokens, logits, rule, ..Slice::empty(self.id) }))
    }

    /// `slice` at `position`, with the fields that all of its slices have.
    fn slice_of(&self, position: u32, slice: Slice) -> Slice {
        let prompt_tokens = self.request.prompt.len() as u32;
        let (attempt, count) = (self.attempt, slice.tokens.len() as u32);
        let BlockTable { full: blocks, window_first, window: window_blocks } = self.blocks.clone();
        Slice { attempt, position, count, prompt_tokens, blocks, window_first, window_blocks, ..slice }
    }

    pub(crate) fn started(&mut self, now: Instant) {
        self.clock.started.get_or_insert(now);
    }

    /// Appends a token that the model chose, which is reported with `score`. True if further ones may follow.
    pub(crate) fn chosen(&mut self, score: ScoredToken, now: Instant, events: &mut Vec<TokenEvent>) -> bool {
        self.append(score.token);
        self.refusals = 0;
        self.reported = self.history.len() as u32;
        self.report(TokenEvent::Token(score), now, events);
        self.ends.is_none() && self.broken.is_none()
    }

    /// Appends a token of the answer, and checks if it ends the sequence.
    fn append(&mut self, token: u32) {
        self.history.push(token);
        self.drafter.observe(token);
        if self.request.stop_tokens.contains(&token) {
            self.ends = Some(Finish::Stop);
            return;
        }
        match self.rules.push(token) {
            Ok(true) => {}
            Ok(false) => self.broken = Some(ConstraintError(format!("token {token} does not fit it"))),
            Err(error) => self.broken = Some(error),
        }
        if self.tokens_left() == 0 {
            self.ends = Some(Finish::Length);
        }
    }

    /// Appends the tokens that the grammar forces, or ends the sequence if the grammar does. To be called after chosen
    /// tokens, when `sent` counts all tokens of the history but the last.
    pub(crate) fn advance(&mut self) {
        while self.ends.is_none() && self.broken.is_none() {
            match self.rules.advance() {
                Ok(Continuation::Chosen) => return,
                Ok(Continuation::End) => self.ends = Some(Finish::Stop),
                Ok(Continuation::Forced(tokens)) => {
                    for token in tokens {
                        self.append(token);
                        if self.ends.is_some() || self.broken.is_some() {
                            break;
                        }
                    }
                }
                Err(error) => self.broken = Some(error),
            }
        }
    }

    /// Reports the token at `position` of the history, which the last stage scored, unless it was reported before.
    pub(crate) fn scored(&mut self, position: u32, score: ScoredToken, now: Instant, events: &mut Vec<TokenEvent>) {
        if position == self.reported && self.history.get(position as usize) == Some(&score.token) {
            self.reported += 1;
            let is_prompt = (position as usize) < self.request.prompt.len();
            let event = if is_prompt { TokenEvent::Scored(score) } else { TokenEvent::Token(score) };
            self.report(event, now, events);
        }
    }

    /// Takes a hidden state of its prompt.
    pub(crate) fn hidden_state(&mut self, state: &HiddenState) {
        if let Some(embedding) = &mut self.embedding {
            embedding.add(state);
            self.refusals = 0;
        }
    }

    /// The embedding of its prompt, once it is complete. The sequence is to end then.
    pub(crate) fn embedding(&self) -> Option<Vec<f32>> {
        self.embedding.as_ref()?.vector()
    }

    /// Reports the next tokens that are known and have no score. Returns the reason if that was all and the sequence is
    /// to end.
    pub(crate) fn report_known(&mut self, now: Instant, events: &mut Vec<TokenEvent>) -> Option<Finish> {
        while (self.reported as usize) < self.history.len() && !self.scores_at(self.reported) {
            let token = self.history[self.reported as usize];
            self.reported += 1;
            self.report(TokenEvent::Token(ScoredToken { token, ..ScoredToken::default() }), now, events);
        }
        self.ends.filter(|_| self.embedding.is_none() && self.reported as usize == self.history.len())
    }

    fn report(&mut self, event: TokenEvent, now: Instant, events: &mut Vec<TokenEvent>) {
        if matches!(event, TokenEvent::Token(_)) {
            self.clock.first_token.get_or_insert(now);
            self.clock.last_token = Some(now);
        }
        events.push(event);
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

    /// The report on this sequence. `before` is the number of sequences that go before it if it waits, `in_flight` its
    /// part of the micro-batches on their way, if there are any.
    pub(super) fn report_at(
        &self,
        before: Option<usize>,
        in_flight: Option<RowsInFlight>,
        now: Instant,
    ) -> SequenceReport {
        let phase = match before {
            Some(before) => SequencePhase::Waiting { before },
            None if self.is_streaming() => SequencePhase::Decode,
            None => SequencePhase::Prefill,
        };
        let prompt_tokens = self.request.prompt.len() as u32;
        SequenceReport {
            id: self.id.0,
            phase,
            prompt_tokens,
            generated_tokens: (self.history.len() as u32).saturating_sub(prompt_tokens),
            tokens_left: self.tokens_left(),
            sent_tokens: self.sent,
            computed_tokens: self.sent.saturating_sub(in_flight.map_or(0, |flying| flying.rows)),
            attempts: self.attempt.0 + 1,
            age: now.saturating_duration_since(self.clock.admitted),
            in_flight: in_flight.map_or(0, |flying| flying.batches),
            in_flight_for: in_flight.map_or(Duration::ZERO, |flying| now.saturating_duration_since(flying.oldest)),
            stages: self.stages.clone(),
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
