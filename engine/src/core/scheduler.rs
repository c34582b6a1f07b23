//! Chooses the sequences of the next micro-batch. Pure: the time is a parameter, and nothing is sent from here.
//!
//! Every micro-batch takes a share of the decoding sequences, so that there are at least as many groups as stages and
//! each stage has one to compute. It fills up with prompt tokens, first come first served: with all that fit if no
//! sequence is being streamed, else with as many as lengthen the time to the next token by a bounded factor.
//! Micro-batches in flight are limited to one more than there are stages: that window is the pipeline's one flow
//! control.
//!
//! A sequence starts with the cached blocks of its prefix (`ledger`). While each decoding sequence has a micro-batch to
//! itself, draft tokens are sent along and verified (`draft`): the tokens are the same in fewer steps. If fewer
//! sequences run than there are stages, an idle stage computes a lookahead micro-batch, which assumes that the draft
//! tokens in flight are accepted. If they are rejected, its result is void.
//!
//! If blocks run out, the sequence that is last in rank is preempted: it releases its blocks and is computed again
//! later from its history. It is never refused. The first in rank can always go on, so every sequence ends.

mod batch_builder;
mod texts;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use schema::frame::{Chosen, Refusal, Slice, Tokens};
use schema::record::{KvBlocks, KvKinds};
use schema::{Epoch, Generation, SequenceId, Step};

use self::batch_builder::BatchBuilder;
use super::batch_timeout::BatchTimeout;
use super::fault::PipelineFault;
use super::flight::{BatchMember, Flight, MemberResults, RowsInFlight};
use super::kv_ledger::{BlockTable, KvLedger};
use super::sequence::{Sequence, StageLabel};
use super::step_cost::StepCost;
use crate::generate::{Failure, Request, ScoredToken, SequenceReport, TokenEvent};
use crate::limits::{PROOF_INTERVAL, REFUSALS_MAX};
use crate::share::BlockSet;

/// The pipeline that a scheduler fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The generation of its placement.
    pub generation: Generation,
    /// Its epoch.
    pub epoch: Epoch,
    /// The stages in layer order.
    pub stages: Vec<StageLabel>,
    /// The kinds of the model's layers.
    pub kinds: KvKinds,
    /// This gateway's blocks of layers without a window, the same on every stage.
    pub blocks: Vec<u32>,
    /// This gateway's blocks of layers with a window, the same on every stage.
    pub window_blocks: Vec<u32>,
    /// Values of a hidden state.
    pub hidden: u32,
    /// True if tokens attend to those after them: texts go through the stages whole, and are embedded only.
    pub bidirectional: bool,
}

/// A micro-batch to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its number in the epoch.
    pub step: Step,
    /// Its sequences.
    pub slices: Vec<Slice>,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequences that were preempted: they released their blocks and are computed again.
    pub preempted: u64,
    /// Draft tokens that were sent to be verified.
    pub draft_tokens: u64,
    /// Draft tokens that were accepted.
    pub accepted_tokens: u64,
    /// Lookahead micro-batches.
    pub lookahead_batches: u64,
    /// Lookahead micro-batches that were of use, because the draft tokens before them were accepted.
    pub lookahead_batches_used: u64,
    /// Blocks of layers with a window that sequences released because the window had moved on.
    pub window_blocks_released: u64,
}

/// All sequences and the micro-batches that carry them.
#[derive(Debug)]
pub struct Scheduler {
    shape: Option<Shape>,
    ledger: KvLedger,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Sequences with blocks, least recently scheduled first.
    running: VecDeque<SequenceId>,
    /// Sequences without blocks, first in rank first.
    waiting: VecDeque<SequenceId>,
    flights: BTreeMap<Step, Flight>,
    cost: StepCost,
    batch_timeout: BatchTimeout,
    /// The time at which the last micro-batch of this epoch came back.
    proven: Option<Instant>,
    /// True if draft tokens are sent along.
    speculates: bool,
    next_step: Step,
    next_sequence: SequenceId,
    counts: Counts,
}

/// Events of sequences, for the receivers of their tokens.
pub type SequenceEvents = Vec<(SequenceId, TokenEvent)>;

fn score(chosen: &Chosen) -> ScoredToken {
    let Chosen { token, logprob, rank, ref alternatives, .. } = *chosen;
    ScoredToken { token, logprob, rank, alternatives: alternatives.clone() }
}

// === impl Scheduler ===

impl Scheduler {
    /// A scheduler without a pipeline and without sequences. With `speculates` it sends draft tokens along.
    pub fn new(speculates: bool) -> Self {
        Self {
            speculates,
            cost: StepCost::default(),
            batch_timeout: BatchTimeout::default(),
            proven: None,
            shape: None,
            ledger: KvLedger::new(KvKinds::Full, [], []),
            sequences: BTreeMap::new(),
            running: VecDeque::new(),
            waiting: VecDeque::new(),
            flights: BTreeMap::new(),
            next_step: Step(0),
            next_sequence: SequenceId(1),
            counts: Counts::default(),
        }
    }

    /// Sequences in work and sequences waiting.
    pub fn load(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// The reports on the sequences that run, least recently scheduled first, and then on those that wait, in their
    /// order.
    pub(super) fn reports(&self, now: Instant) -> Vec<SequenceReport> {
        let mut in_flight: BTreeMap<SequenceId, RowsInFlight> = BTreeMap::new();
        for flight in self.flights.values() {
            for member in &flight.members {
                let none = RowsInFlight { batches: 0, rows: 0, oldest: flight.sent };
                let flying = in_flight.entry(member.sequence).or_insert(none);
                flying.batches += 1;
                flying.rows += member.rows;
                flying.oldest = flight.sent.min(flying.oldest);
            }
        }
        let report = |id: &SequenceId, before: Option<usize>| {
            Some(self.sequences.get(id)?.report_at(before, in_flight.get(id).copied(), now))
        };
        let running = self.running.iter().filter_map(|id| report(id, None));
        running.chain(self.waiting.iter().enumerate().filter_map(|(before, id)| report(id, Some(before)))).collect()
    }

    /// Micro-batches in flight that carry work.
    pub fn in_flight(&self) -> usize {
        self.flights.values().filter(|flight| flight.rows() > 0).count()
    }

    /// Counters since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Blocks of each kind that no sequence owns. Some may be cached.
    pub fn free_blocks(&self) -> KvBlocks {
        self.ledger.free()
    }

    /// Blocks of each kind that this gateway has.
    pub fn total_blocks(&self) -> KvBlocks {
        self.ledger.total()
    }

    /// Number of `blocks` that sequences own.
    pub(super) fn owned_among(&self, blocks: &BlockSet) -> usize {
        self.ledger.owned_among(blocks)
    }

    /// Fewest blocks of each kind that suffice for the longest of the sequences: with fewer it could never end.
    pub(super) fn blocks_needed(&self) -> KvBlocks {
        self.blocks_needed_by(self.ledger.kinds())
    }

    /// The same for layers of these kinds, which the ledger does not know while there is no pipeline.
    pub(super) fn blocks_needed_by(&self, kinds: KvKinds) -> KvBlocks {
        kinds.blocks_needed(self.sequences.values().map(Sequence::tokens_at_end).max().unwrap_or(0))
    }

    /// True if the sequence can end in the blocks that there are. One that cannot was accepted when there were more: it
    /// waits for them, and the others go on.
    pub(super) fn can_end(&self, sequence: &Sequence) -> bool {
        let (needed, total) = (self.ledger.kinds().blocks_needed(sequence.tokens_at_end()), self.ledger.total());
        needed.full <= total.full && needed.window <= total.window
    }

    /// Adds blocks to this gateway's.
    pub(super) fn gain(&mut self, blocks: BlockSet) {
        self.ledger.gain(blocks.full, blocks.window);
    }

    /// Removes blocks from this gateway's. The sequences that own some of them are preempted.
    pub(super) fn lose(&mut self, blocks: &BlockSet) {
        let owns = |id: &SequenceId| self.sequences.get(id).is_some_and(|own| own.blocks.has_any(blocks));
        let owners: Vec<_> = self.running.iter().copied().filter(owns).collect();
        for id in owners {
            self.preempt(id);
        }
        self.ledger.lose(blocks);
    }

    /// The step of the next micro-batch in this epoch.
    pub(super) fn next_step(&self) -> Step {
        self.next_step
    }

    /// True if no micro-batch of this epoch before `step` is in flight.
    pub(super) fn has_returned(&self, step: Step) -> bool {
        self.flights.keys().next().is_none_or(|oldest| *oldest >= step)
    }

    /// The pipeline being filled.
    pub fn shape(&self) -> Option<&Shape> {
        self.shape.as_ref()
    }

    /// True if texts go through the pipeline whole.
    pub(super) fn is_bidirectional(&self) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.bidirectional)
    }

    /// Admits a sequence. The caller has checked that it fits the pipeline.
    pub fn admit(&mut self, request: Request, now: Instant) -> SequenceId {
        let id = self.next_sequence;
        self.next_sequence = id.next();
        self.sequences.insert(id, Sequence::new(id, request, now));
        self.enqueue(id);
        id
    }

    /// Inserts a sequence into the waiting ones, by its rank.
    fn enqueue(&mut self, id: SequenceId) {
        let rank = |id: &SequenceId| self.sequences.get(id).map(Sequence::rank);
        let own = rank(&id);
        let place = self.waiting.partition_point(|other| rank(other) < own);
        self.waiting.insert(place, id);
    }

    /// Forgets a sequence. Its tokens in flight are ignored when they come back.
    pub fn cancel(&mut self, id: SequenceId) {
        let Some(mut sequence) = self.sequences.remove(&id) else { return };
        self.ledger.release(&mut sequence.blocks);
        self.running.retain(|other| *other != id);
        self.waiting.retain(|other| *other != id);
    }

    /// Starts a new epoch with the pipeline `shape` (`None`: there is none). All sequences start again from their
    /// histories.
    pub fn rebuild(&mut self, shape: Option<Shape>) {
        self.flights.clear();
        let placed = |shape: &Option<Shape>| shape.as_ref().map(|shape| shape.generation);
        self.batch_timeout.new_epoch(placed(&shape) == placed(&self.shape));
        self.next_step = Step(0);
        self.proven = None;
        self.ledger = match &shape {
            Some(shape) => {
                KvLedger::new(shape.kinds, shape.blocks.iter().copied(), shape.window_blocks.iter().copied())
            }
            None => KvLedger::new(KvKinds::Full, [], []),
        };
        for id in std::mem::take(&mut self.running) {
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            sequence.blocks = BlockTable::default();
            sequence.restart();
            self.enqueue(id);
        }
        self.shape = shape;
    }

    /// True once a micro-batch of this epoch has come through all stages and back.
    pub fn is_proven(&self) -> bool {
        self.proven.is_some()
    }

    /// The time at which the last micro-batch of this epoch came back.
    #[cfg(test)]
    pub(crate) fn proven_at(&self) -> Option<Instant> {
        self.proven
    }

    /// An empty micro-batch that proves that the pipeline works: the first one of an epoch, and again when nothing has
    /// come through the pipeline for [`PROOF_INTERVAL`].
    pub fn proof(&mut self, now: Instant) -> Option<Step> {
        self.shape.as_ref()?;
        let is_first = self.next_step == Step(0);
        let is_old = |proven: Instant| now.saturating_duration_since(proven) >= PROOF_INTERVAL;
        let is_due = self.flights.is_empty() && self.proven.is_none_or(is_old);
        if !is_first && !is_due {
            return None;
        }
        let step = self.next_step;
        self.next_step = step.next();
        self.flights.insert(step, Flight { members: Vec::new(), sent: now, is_streaming: false });
        Some(step)
    }

    /// The next micro-batch, if the window has room and a sequence has something to send.
    pub fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        let stages = self.shape.as_ref()?.stages.len();
        if self.flights.len() > stages {
            return None;
        }
        let batch = self.fill(stages, now);
        if batch.slices.is_empty() {
            return None;
        }
        let step = self.next_step;
        self.next_step = step.next();
        let BatchBuilder { slices, drafts, is_lookahead, .. } = batch;
        self.counts.draft_tokens += drafts.iter().sum::<usize>() as u64 + u64::from(is_lookahead);
        self.counts.lookahead_batches += u64::from(is_lookahead);
        let record_sent = |(slice, drafts)| self.record_sent(slice, drafts, is_lookahead, now);
        let members = slices.iter().zip(drafts).map(record_sent).collect();
        let is_streaming = slices.iter().any(|slice| self.is_streaming(slice.sequence));
        self.flights.insert(step, Flight { members, sent: now, is_streaming });
        Some(Batch { step, slices })
    }

    /// Records that `slice` is in flight.
    fn record_sent(&mut self, slice: &Slice, drafts: usize, is_lookahead: bool, now: Instant) -> BatchMember {
        let bidirectional = self.is_bidirectional();
        if let Some(sequence) = self.sequences.get_mut(&slice.sequence) {
            if is_lookahead {
                sequence.unverified += slice.count;
            } else {
                sequence.sent = slice.position + slice.count - drafts as u32;
                sequence.unverified = drafts as u32;
                // What a token's keys and values are depends on those after it in a bidirectional model.
                if !bidirectional {
                    self.counts.window_blocks_released += sequence.commit_blocks(&mut self.ledger);
                }
            }
            sequence.started(now);
        }
        BatchMember::new(slice, drafts, is_lookahead)
    }

    fn is_streaming(&self, id: SequenceId) -> bool {
        self.sequences.get(&id).is_some_and(Sequence::is_streaming)
    }

    /// Handles the tokens of a micro-batch. Tokens of another generation or epoch, and duplicates, are ignored.
    ///
    /// # Errors
    /// A [`PipelineFault`] if micro-batches were lost or the tokens do not match. The caller then rebuilds.
    pub fn complete(&mut self, tokens: &Tokens, now: Instant) -> Result<SequenceEvents, PipelineFault> {
        let Some(oldest) = self.expected(tokens.generation, tokens.epoch, tokens.step)? else { return Ok(Vec::new()) };
        let Some(flight) = self.flights.remove(&oldest) else { return Ok(Vec::new()) };
        let labels = self.shape.as_ref().map(|shape| shape.stages.clone()).unwrap_or_default();
        let hidden = self.shape.as_ref().map_or(0, |shape| shape.hidden);
        let by_member = flight.by_member(tokens, hidden).ok_or(PipelineFault::Mismatch(oldest))?;
        self.proven = Some(now);
        let expected = (flight.rows() > 0).then(|| self.expected_seconds(flight.rows())).flatten();
        self.batch_timeout.batch_returned(flight.sent, expected, now);
        let slowest = tokens.spent.iter().filter(|spent| spent.rows > 0).max_by_key(|spent| spent.compute_us);
        if let Some(slowest) = slowest {
            self.cost.observe(slowest.rows, Duration::from_micros(slowest.compute_us.into()));
        }
        let mut events = Vec::new();
        for MemberResults { member, chosen, hidden_states } in by_member {
            let Some(sequence) = self.sequences.get_mut(&member.sequence) else { continue };
            if sequence.attempt != member.attempt {
                continue;
            }
            sequence.add_stage_times(&tokens.spent, &labels, member.rows);
            if member.is_void {
                continue;
            }
            if let Some(cached_tokens) = sequence.take_cached_tokens() {
                events.push((member.sequence, TokenEvent::Started { cached_tokens }));
            }
            let mut own = Vec::new();
            // Tokens that the grammar forces at the beginning come before the first chosen one.
            sequence.report_known(now, &mut own);
            let (scored, chosen) = chosen.split_at(member.scored.min(chosen.len()));
            for scored in scored {
                sequence.scored(scored.position, score(scored), now, &mut own);
            }
            hidden_states.iter().for_each(|state| sequence.hidden_state(state));
            let usable = member.usable(chosen).count();
            self.counts.accepted_tokens += usable.saturating_sub(1) as u64;
            let goes_on = member.usable(chosen).all(|chosen| sequence.chosen(score(chosen), now, &mut own));
            if goes_on && member.chooses() {
                self.settle(member, usable);
            }
            let Some(sequence) = self.sequences.get_mut(&member.sequence) else { continue };
            let finish = sequence.report_known(now, &mut own);
            let finished = finish.map(|finish| TokenEvent::Finished { finish, timings: sequence.timings(now) });
            let embedded =
                || Some(TokenEvent::Embedded { vector: sequence.embedding()?, timings: sequence.timings(now) });
            let failed = || sequence.broken.clone().map(|error| TokenEvent::Failed(error.into()));
            let end = finished.or_else(embedded).or_else(failed);
            let is_over = end.is_some();
            own.extend(end);
            events.extend(own.into_iter().map(|event| (member.sequence, event)));
            if is_over {
                self.cancel(member.sequence);
            }
        }
        Ok(events)
    }

    /// Records that `usable` of the tokens of `member` were of use. The rows of accepted draft tokens are computed
    /// already. A lookahead micro-batch that goes on from them is of use if all were accepted.
    fn settle(&mut self, member: &BatchMember, usable: usize) {
        let Some(sequence) = self.sequences.get_mut(&member.sequence) else { return };
        let (length, last) = (sequence.history.len() as u32, sequence.history.last().copied());
        let is_its = |later: &&mut BatchMember| {
            (later.sequence, later.attempt) == (member.sequence, member.attempt) && !later.is_void
        };
        let mut later = self.flights.values_mut().flat_map(|flight| &mut flight.members).filter(is_its).peekable();
        let goes_on = |next: &&mut BatchMember| usable > member.drafts.len() && next.assumes == last;
        if later.peek().is_some_and(goes_on) {
            self.counts.accepted_tokens += 1;
            self.counts.lookahead_batches_used += 1;
            sequence.sent = length;
            sequence.unverified = sequence.unverified.saturating_sub(usable as u32);
        } else {
            later.for_each(|later| later.is_void = true);
            (sequence.sent, sequence.unverified) = (length - 1, 0);
        }
        sequence.advance();
        self.counts.window_blocks_released += sequence.commit_blocks(&mut self.ledger);
    }

    /// The oldest step in flight, if the tokens are for it. `None` if they are stale.
    fn expected(&self, generation: Generation, epoch: Epoch, step: Step) -> Result<Option<Step>, PipelineFault> {
        let current = self.shape.as_ref().is_some_and(|shape| (shape.generation, shape.epoch) == (generation, epoch));
        match self.flights.first_key_value() {
            Some((oldest, _)) if current && step > *oldest && step < self.next_step => {
                Err(PipelineFault::Gap { expected: *oldest, found: step })
            }
            Some((oldest, _)) if current && step == *oldest => Ok(Some(*oldest)),
            _ => Ok(None),
        }
    }

    /// Handles a refusal. Sequences whose work is refused too often fail. `None` if the refusal is stale, else the
    /// caller rebuilds.
    pub fn refused(&mut self, refusal: &Refusal) -> Option<(PipelineFault, SequenceEvents)> {
        let shape = self.shape.as_ref()?;
        if (shape.generation, shape.epoch) != (refusal.generation, refusal.epoch) {
            return None;
        }
        // Otherwise every micro-batch that it could be about has come back.
        self.flights.range(..=refusal.step).next()?;
        let stage = shape.stages.get(refusal.slot as usize).map_or("unknown", |label| &label.stage).to_owned();
        let members = self.flights.remove(&refusal.step).map(|flight| flight.members).unwrap_or_default();
        let mut events = Vec::new();
        for member in members.into_iter().filter(|_| !refusal.passing) {
            let Some(sequence) = self.sequences.get_mut(&member.sequence) else { continue };
            sequence.refusals += 1;
            if sequence.refusals >= REFUSALS_MAX {
                let failure = Failure::Stage { stage: stage.clone(), reason: refusal.reason.clone() };
                events.push((member.sequence, TokenEvent::Failed(failure)));
                self.cancel(member.sequence);
            }
        }
        let fault = PipelineFault::Refused { stage, step: refusal.step, reason: refusal.reason.clone() };
        Some((fault, events))
    }

    /// The step of the oldest micro-batch in flight.
    pub fn oldest_in_flight(&self) -> Option<Step> {
        self.flights.first_key_value().map(|(step, _)| *step)
    }

    /// Fails sequences past their deadlines, and those whose grammars cannot be followed.
    pub fn expire(&mut self, now: Instant) -> SequenceEvents {
        let failure = |sequence: &Sequence| {
            let late = sequence.deadline <= now;
            let broken = sequence.broken.clone().map(Failure::Grammar);
            let limit_s = sequence.request.deadline.as_secs();
            Some((sequence.id, broken.or_else(|| late.then_some(Failure::Deadline { limit_s }))?))
        };
        let failures: Vec<_> = self.sequences.values().filter_map(failure).collect();
        for (id, _) in &failures {
            self.cancel(*id);
        }
        failures.into_iter().map(|(id, failure)| (id, TokenEvent::Failed(failure))).collect()
    }

    /// A fault if the oldest micro-batch should have come back by now.
    pub fn overdue(&mut self, now: Instant) -> Option<PipelineFault> {
        let (step, flight) = self.flights.first_key_value()?;
        // If others follow an empty one, it has their timeout: it waits for the same stages as they do.
        let rows = self.flights.values().map(Flight::rows).find(|rows| *rows > 0);
        let deadline = match rows {
            Some(rows) => self.batch_timeout.deadline(flight.sent, rows, self.expected_seconds(rows)),
            None => self.batch_timeout.proof_deadline(flight.sent),
        };
        if deadline > now {
            return None;
        }
        self.batch_timeout.timed_out();
        Some(PipelineFault::Overdue(*step))
    }

    /// Expected time of a micro-batch of `rows` rows that has the pipeline to itself, in seconds. `None` before the
    /// first observation.
    fn expected_seconds(&self, rows: u32) -> Option<f64> {
        Some(self.cost.seconds(rows)? * self.shape.as_ref()?.stages.len() as f64)
    }
}

#[cfg(test)]
mod audit;
#[cfg(test)]
mod tests;
