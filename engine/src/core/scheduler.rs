//! Which sequences go into the next micro-batch. Pure: time comes in as a parameter, nothing is sent from here.
//!
//! Every micro-batch takes a share of the decoding sequences, so that there are at least as many groups as stages and
//! each stage has one to compute, and fills up with prompt tokens, first come first served: all it can carry when nobody
//! reads along, else as many as stretch the time to the next token by a bounded part. Micro-batches in flight are limited
//! to one more than there are stages: that window is the pipeline's one flow control.
//!
//! A sequence begins with the blocks that hold its beginning already, whoever computed them (`ledger`). While each decoding
//! sequence has a micro-batch to itself, guesses at its next tokens are sent along and verified (`draft`): the tokens are
//! the same, some steps fewer. Where fewer sequences run than there are stages, a stage that would wait goes on as if the
//! guesses on their way had come true; if they have not, what it brings is void.
//!
//! When blocks run out, the last in rank gives its own back and is computed again later from its history; it is never
//! refused. The first in rank can always go on, so everything ends.

mod filling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use schema::frame::{Refusal, Slice, Tokens};
use schema::{Epoch, Generation, SequenceId, Step};

use self::filling::Filling;
use super::batch_timeout::BatchTimeout;
use super::fault::PipelineFault;
use super::flight::{Flight, Member};
use super::ledger::BlockLedger;
use super::sequence::{Sequence, StageLabel};
use super::step_cost::StepCost;
use crate::generate::{Failure, Request, TokenEvent};
use crate::limits::{PROVE_EVERY, REFUSALS_MAX};
use crate::runner::KV_BLOCK_TOKENS;

/// The pipeline that a scheduler fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The placement it follows.
    pub generation: Generation,
    /// Its incarnation.
    pub epoch: Epoch,
    /// The stages in layer order.
    pub stages: Vec<StageLabel>,
    /// The blocks of keys and values that are this gateway's, on every stage.
    pub blocks: Vec<u32>,
}

/// A micro-batch to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its number in the epoch.
    pub step: Step,
    /// Its sequences.
    pub slices: Vec<Slice>,
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequences that gave their blocks back to be computed again.
    pub preempted: u64,
    /// Guessed tokens that were sent along.
    pub guessed: u64,
    /// Guessed tokens that came true.
    pub guessed_right: u64,
    /// Micro-batches that went on from guesses.
    pub ahead: u64,
    /// Those whose guesses had come true.
    pub ahead_right: u64,
}

/// All sequences and the micro-batches that carry them.
#[derive(Debug)]
pub struct Scheduler {
    shape: Option<Shape>,
    ledger: BlockLedger,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Sequences with blocks, least recently scheduled first.
    running: VecDeque<SequenceId>,
    /// Sequences without blocks, first in rank first.
    waiting: VecDeque<SequenceId>,
    flights: BTreeMap<Step, Flight>,
    cost: StepCost,
    batch_timeout: BatchTimeout,
    /// The moment a micro-batch came back last in this epoch.
    proven: Option<Instant>,
    /// Whether guesses are sent along.
    speculates: bool,
    next_step: Step,
    next_sequence: SequenceId,
    counts: Counts,
}

/// What happened to sequences, for those who wait for them.
pub type Happened = Vec<(SequenceId, TokenEvent)>;

// === impl Scheduler ===

impl Scheduler {
    /// Without a pipeline and without sequences; `speculates` says whether guesses may be sent along.
    pub fn new(speculates: bool) -> Self {
        Self {
            speculates,
            cost: StepCost::default(),
            batch_timeout: BatchTimeout::default(),
            proven: None,
            shape: None,
            ledger: BlockLedger::new([]),
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

    /// Micro-batches on their way that carry work.
    pub fn in_flight(&self) -> usize {
        self.flights.values().filter(|flight| flight.rows() > 0).count()
    }

    /// What happened since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Blocks that no sequence owns; some may hold what a later one can begin with.
    pub fn free_blocks(&self) -> usize {
        self.ledger.free()
    }

    /// Blocks that this gateway has.
    pub fn total_blocks(&self) -> usize {
        self.ledger.total()
    }

    /// How many of `blocks` sequences own.
    pub(super) fn owned_among(&self, blocks: impl Iterator<Item = u32>) -> usize {
        blocks.filter(|block| self.ledger.is_owned(*block)).count()
    }

    /// Blocks that the longest of the sequences may come to need: with fewer it could never end.
    pub(super) fn blocks_needed(&self) -> u32 {
        let tokens = |sequence: &Sequence| sequence.history.len() as u32 + sequence.tokens_left();
        self.sequences.values().map(tokens).max().unwrap_or(0).div_ceil(KV_BLOCK_TOKENS)
    }

    /// These blocks are this gateway's, too, from now on.
    pub(super) fn gain(&mut self, blocks: impl Iterator<Item = u32>) {
        self.ledger.gain(blocks);
    }

    /// These blocks are this gateway's no more. Who owns one of them is computed again, later.
    pub(super) fn lose(&mut self, blocks: &BTreeSet<u32>) {
        let owns = |id: &SequenceId| {
            self.sequences.get(id).is_some_and(|own| own.blocks.iter().any(|own| blocks.contains(own)))
        };
        let owners: Vec<_> = self.running.iter().copied().filter(owns).collect();
        for id in owners {
            self.preempt(id);
        }
        self.ledger.lose(blocks);
    }

    /// The step that the next micro-batch of this epoch will have.
    pub(super) fn next_step(&self) -> Step {
        self.next_step
    }

    /// Whether nothing of this epoch is on its way that was sent before `step`.
    pub(super) fn has_returned(&self, step: Step) -> bool {
        self.flights.keys().next().is_none_or(|oldest| *oldest >= step)
    }

    /// The pipeline being filled.
    pub fn shape(&self) -> Option<&Shape> {
        self.shape.as_ref()
    }

    /// Admits a sequence. The caller has checked that it fits the pipeline.
    pub fn admit(&mut self, request: Request, now: Instant) -> SequenceId {
        let id = self.next_sequence;
        self.next_sequence = id.next();
        self.sequences.insert(id, Sequence::new(id, request, now));
        self.wait(id);
        id
    }

    /// Puts a sequence where its rank belongs among the waiting.
    fn wait(&mut self, id: SequenceId) {
        let rank = |id: &SequenceId| self.sequences.get(id).map(Sequence::rank);
        let own = rank(&id);
        let place = self.waiting.partition_point(|other| rank(other) < own);
        self.waiting.insert(place, id);
    }

    /// Forgets a sequence; what is in flight of it is ignored when it comes back.
    pub fn cancel(&mut self, id: SequenceId) {
        let Some(mut sequence) = self.sequences.remove(&id) else { return };
        self.ledger.give_back(&mut sequence.blocks);
        self.running.retain(|other| *other != id);
        self.waiting.retain(|other| *other != id);
    }

    /// From now on fills the pipeline `shape` (`None`: there is none). All sequences start again from their histories.
    pub fn rebuild(&mut self, shape: Option<Shape>) {
        self.flights.clear();
        let placed = |shape: &Option<Shape>| shape.as_ref().map(|shape| shape.generation);
        self.batch_timeout.begin_anew(placed(&shape) == placed(&self.shape));
        self.next_step = Step(0);
        self.proven = None;
        self.ledger = BlockLedger::new(shape.iter().flat_map(|shape| shape.blocks.iter().copied()));
        for id in std::mem::take(&mut self.running) {
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            sequence.blocks.clear();
            sequence.restart();
            self.wait(id);
        }
        self.shape = shape;
    }

    /// True once a micro-batch of this epoch has come through all stages and back.
    pub fn is_proven(&self) -> bool {
        self.proven.is_some()
    }

    /// The moment a micro-batch of this epoch came back last.
    #[cfg(test)]
    pub(crate) fn proven_at(&self) -> Option<Instant> {
        self.proven
    }

    /// An empty micro-batch, where there is something to show by it: first of all in an epoch, and when nothing has come through
    /// the pipeline for a while.
    pub fn proof(&mut self, now: Instant) -> Option<Step> {
        self.shape.as_ref()?;
        let is_first = self.next_step == Step(0);
        let is_old = |proven: Instant| now.saturating_duration_since(proven) >= PROVE_EVERY;
        let is_due = self.flights.is_empty() && self.proven.is_none_or(is_old);
        if !is_first && !is_due {
            return None;
        }
        let step = self.next_step;
        self.next_step = step.next();
        self.flights.insert(step, Flight { members: Vec::new(), sent: now, is_read: false });
        Some(step)
    }

    /// The next micro-batch, if the window has room and a sequence has something to send.
    pub fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        let stages = self.shape.as_ref()?.stages.len();
        if self.flights.len() > stages {
            return None;
        }
        let filling = self.fill(stages, now);
        if filling.slices.is_empty() {
            return None;
        }
        let step = self.next_step;
        self.next_step = step.next();
        let Filling { slices, drafts, is_ahead, .. } = filling;
        self.counts.guessed += drafts.iter().sum::<usize>() as u64 + u64::from(is_ahead);
        self.counts.ahead += u64::from(is_ahead);
        let depart = |(slice, drafts)| self.depart(slice, drafts, is_ahead, now);
        let members = slices.iter().zip(drafts).map(depart).collect();
        let is_read = slices.iter().any(|slice| self.is_read(slice.sequence));
        self.flights.insert(step, Flight { members, sent: now, is_read });
        Some(Batch { step, slices })
    }

    /// Notes that `slice` is on its way.
    fn depart(&mut self, slice: &Slice, drafts: usize, is_ahead: bool, now: Instant) -> Member {
        if let Some(sequence) = self.sequences.get_mut(&slice.sequence) {
            if is_ahead {
                sequence.ahead += slice.count;
            } else {
                sequence.sent = slice.position + slice.count - drafts as u32;
                sequence.ahead = drafts as u32;
                sequence.insert_prefixes(&mut self.ledger);
            }
            sequence.started(now);
        }
        Member::new(slice, drafts, is_ahead)
    }

    fn is_read(&self, id: SequenceId) -> bool {
        self.sequences.get(&id).is_some_and(Sequence::is_read)
    }

    /// Takes back what a micro-batch brought. Answers of another generation or epoch, and duplicates, bring nothing.
    ///
    /// # Errors
    /// A [`PipelineFault`] when micro-batches were lost or the answer does not fit; the caller then rebuilds.
    pub fn complete(&mut self, tokens: &Tokens, now: Instant) -> Result<Happened, PipelineFault> {
        let Some(oldest) = self.expected(tokens.generation, tokens.epoch, tokens.step)? else { return Ok(Vec::new()) };
        let Some(flight) = self.flights.remove(&oldest) else { return Ok(Vec::new()) };
        let labels = self.shape.as_ref().map(|shape| shape.stages.clone()).unwrap_or_default();
        let brought = flight.brought(&tokens.chosen).ok_or(PipelineFault::Mismatch(oldest))?;
        self.proven = Some(now);
        let expected = (flight.rows() > 0).then(|| self.expected_seconds(flight.rows())).flatten();
        self.batch_timeout.came_back(flight.sent, expected, now);
        let slowest = tokens.spent.iter().filter(|spent| spent.rows > 0).max_by_key(|spent| spent.compute_us);
        if let Some(slowest) = slowest {
            self.cost.observe(slowest.rows, Duration::from_micros(slowest.compute_us.into()));
        }
        let mut happened = Vec::new();
        for (member, brought) in brought {
            let Some(sequence) = self.sequences.get_mut(&member.sequence) else { continue };
            if sequence.attempt != member.attempt {
                continue;
            }
            sequence.book(&tokens.spent, &labels, member.rows);
            if member.is_void {
                continue;
            }
            if let Some(cached_tokens) = sequence.began() {
                happened.push((member.sequence, TokenEvent::Began { cached_tokens }));
            }
            let mut finish = None;
            let usable = member.usable(brought).count();
            self.counts.guessed_right += usable.saturating_sub(1) as u64;
            for brought in member.usable(brought) {
                finish = sequence.push(brought.token, now);
                happened.push((member.sequence, TokenEvent::Token { token: brought.token, logprob: brought.logprob }));
                if finish.is_some() {
                    break;
                }
            }
            if let Some(finish) = finish {
                happened.push((member.sequence, TokenEvent::Finished { finish, timings: sequence.timings(now) }));
                self.cancel(member.sequence);
            } else if member.brings_tokens() {
                self.settle(member, usable);
            }
        }
        Ok(happened)
    }

    /// So many of the tokens that `member` brought were of use. What came true of the guesses is computed already; what goes on
    /// from them is of use if all did.
    fn settle(&mut self, member: &Member, usable: usize) {
        let Some(sequence) = self.sequences.get_mut(&member.sequence) else { return };
        let (length, last) = (sequence.history.len() as u32, sequence.history.last().copied());
        let is_its = |later: &&mut Member| {
            (later.sequence, later.attempt) == (member.sequence, member.attempt) && !later.is_void
        };
        let mut later = self.flights.values_mut().flat_map(|flight| &mut flight.members).filter(is_its).peekable();
        let goes_on = |next: &&mut Member| usable > member.drafts.len() && next.assumes == last;
        if later.peek().is_some_and(goes_on) {
            self.counts.guessed_right += 1;
            self.counts.ahead_right += 1;
            sequence.sent = length;
            sequence.ahead = sequence.ahead.saturating_sub(usable as u32);
        } else {
            later.for_each(|later| later.is_void = true);
            (sequence.sent, sequence.ahead) = (length - 1, 0);
        }
        sequence.insert_prefixes(&mut self.ledger);
    }

    /// The oldest step in flight if the answer is for it, `None` if the answer is stale.
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

    /// Notes a refusal; sequences whose work is refused too often fail. `None` when the refusal is stale, else the caller rebuilds.
    pub fn refused(&mut self, refusal: &Refusal) -> Option<(PipelineFault, Happened)> {
        let shape = self.shape.as_ref()?;
        if (shape.generation, shape.epoch) != (refusal.generation, refusal.epoch) {
            return None;
        }
        // Otherwise all that it could be about has come back.
        self.flights.range(..=refusal.step).next()?;
        let stage = shape.stages.get(refusal.slot as usize).map_or("unknown", |label| &label.stage).to_owned();
        let members = self.flights.remove(&refusal.step).map(|flight| flight.members).unwrap_or_default();
        let mut happened = Vec::new();
        for member in members.into_iter().filter(|_| !refusal.passing) {
            let Some(sequence) = self.sequences.get_mut(&member.sequence) else { continue };
            sequence.refusals += 1;
            if sequence.refusals >= REFUSALS_MAX {
                let failure = Failure::Stage { stage: stage.clone(), reason: refusal.reason.clone() };
                happened.push((member.sequence, TokenEvent::Failed(failure)));
                self.cancel(member.sequence);
            }
        }
        let fault = PipelineFault::Refused { stage, step: refusal.step, reason: refusal.reason.clone() };
        Some((fault, happened))
    }

    /// The micro-batch that is to come back next.
    pub fn oldest_in_flight(&self) -> Option<Step> {
        self.flights.first_key_value().map(|(step, _)| *step)
    }

    /// Ends sequences whose time is up.
    pub fn expire(&mut self, now: Instant) -> Happened {
        let late: Vec<_> =
            self.sequences.values().filter(|sequence| sequence.deadline <= now).map(|sequence| sequence.id).collect();
        let fail = |id: &SequenceId| {
            let limit_s = self.sequences.get(id).map_or(0, |sequence| sequence.request.deadline.as_secs());
            (*id, TokenEvent::Failed(Failure::Deadline { limit_s }))
        };
        let happened = late.iter().map(fail).collect();
        for id in late {
            self.cancel(id);
        }
        happened
    }

    /// Gives the oldest micro-batch up when it should have come back by now.
    pub fn overdue(&mut self, now: Instant) -> Option<PipelineFault> {
        let (step, flight) = self.flights.first_key_value()?;
        // An empty one that others follow is waited for as they are: it waits for the same as they do.
        let rows = self.flights.values().map(Flight::rows).find(|rows| *rows > 0);
        let ends = match rows {
            Some(rows) => self.batch_timeout.ends(flight.sent, rows, self.expected_seconds(rows)),
            None => self.batch_timeout.ends_of_proof(flight.sent),
        };
        if ends > now {
            return None;
        }
        self.batch_timeout.gave_up();
        Some(PipelineFault::Overdue(*step))
    }

    /// What a micro-batch of `rows` rows should take that has the pipeline to itself; `None` when nothing was seen yet.
    fn expected_seconds(&self, rows: u32) -> Option<f64> {
        Some(self.cost.seconds(rows)? * self.shape.as_ref()?.stages.len() as f64)
    }
}

#[cfg(test)]
mod audit;
#[cfg(test)]
mod tests;
