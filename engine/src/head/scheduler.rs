//! Which sequences go into the next micro-batch. Pure: time comes in as a parameter, nothing is sent from here.
//!
//! Every micro-batch takes a share of the decoding sequences, so that there are at least as many groups as stages and
//! each stage has one to compute, and fills up with prompt tokens, oldest sequence first. Micro-batches in flight are
//! limited to one more than there are stages: that window is the pipeline's one flow control.
//!
//! When blocks run out, the youngest sequence gives its own back and is computed again later from its history; it is
//! never refused. The oldest can always go on, so everything ends.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use schema::frame::{Chosen, Refusal, Slice, Tokens};
use schema::{Attempt, Epoch, Generation, SequenceId, Step};

use super::ledger::BlockLedger;
use super::sequence::{Sequence, StageLabel};
use crate::generate::{Event, Failure, Request};
use crate::limits::{BATCH_ROWS_MAX, DECODES_MAX, FLIGHT_DEADLINE, FLIGHT_DEADLINE_PER_ROW, REFUSALS_MAX, RUNNING_MAX};
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
    /// Blocks of keys and values that every stage has.
    pub kv_blocks: u32,
}

/// A micro-batch to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its number in the epoch.
    pub step: Step,
    /// Its sequences.
    pub slices: Vec<Slice>,
}

/// The pipeline lost or refused something: a new epoch must begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A later micro-batch came back first.
    #[error("micro-batch {found} came back: expected {expected}")]
    Gap {
        /// The oldest in flight.
        expected: Step,
        /// What came.
        found: Step,
    },
    /// The last stage answered something else than it was asked.
    #[error("micro-batch {0} came back without the tokens it was to bring")]
    Mismatch(Step),
    /// A micro-batch did not come back.
    #[error("micro-batch {0} did not come back in time")]
    Overdue(Step),
    /// A stage refused.
    #[error("stage {stage} refused micro-batch {step}: {reason}")]
    Refused {
        /// The stage.
        stage: String,
        /// The micro-batch.
        step: Step,
        /// Its words.
        reason: String,
    },
}

/// What a sequence in a flight is waiting for.
#[derive(Debug)]
struct Member {
    sequence: SequenceId,
    attempt: Attempt,
    rows: u32,
    /// Position of the token it brings, if it brings one.
    brings: Option<u32>,
}

#[derive(Debug)]
struct Flight {
    members: Vec<Member>,
    deadline: Instant,
}

// === impl Flight ===

impl Flight {
    /// For each member the token it was to bring; `None` when `chosen` is anything but those.
    fn brought(&self, chosen: &[Chosen]) -> Option<Vec<Option<Chosen>>> {
        let mut chosen = chosen.iter().copied();
        let mut brought = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let Some(position) = member.brings else {
                brought.push(None);
                continue;
            };
            let next = chosen.next()?;
            if (next.sequence, next.attempt, next.position) != (member.sequence, member.attempt, position) {
                return None;
            }
            brought.push(Some(next));
        }
        chosen.next().is_none().then_some(brought)
    }
}

/// All sequences and the micro-batches that carry them.
#[derive(Debug)]
pub struct Scheduler {
    shape: Option<Shape>,
    ledger: BlockLedger,
    sequences: BTreeMap<SequenceId, Sequence>,
    /// Sequences with blocks, least recently scheduled first.
    running: VecDeque<SequenceId>,
    /// Sequences without blocks, oldest first.
    waiting: VecDeque<SequenceId>,
    flights: BTreeMap<Step, Flight>,
    next_step: Step,
    next_sequence: SequenceId,
}

/// What happened to sequences, for those who wait for them.
pub type Happened = Vec<(SequenceId, Event)>;

// === impl Scheduler ===

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            shape: None,
            ledger: BlockLedger::new(0),
            sequences: BTreeMap::new(),
            running: VecDeque::new(),
            waiting: VecDeque::new(),
            flights: BTreeMap::new(),
            next_step: Step(0),
            next_sequence: SequenceId(1),
        }
    }
}

impl Scheduler {
    /// Sequences in work and sequences waiting.
    pub fn load(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// Blocks that no sequence owns.
    pub fn free_blocks(&self) -> usize {
        self.ledger.free()
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
        self.waiting.push_back(id);
        id
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
        self.next_step = Step(0);
        self.ledger = BlockLedger::new(shape.as_ref().map_or(0, |shape| shape.kv_blocks));
        for id in self.running.drain(..) {
            let Some(sequence) = self.sequences.get_mut(&id) else { continue };
            sequence.blocks.clear();
            sequence.restart();
            self.waiting.push_back(id);
        }
        self.waiting.make_contiguous().sort_unstable();
        self.shape = shape;
    }

    /// The next micro-batch, if the window has room and a sequence has something to send.
    pub fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        let stages = self.shape.as_ref()?.stages.len();
        if self.flights.len() > stages {
            return None;
        }
        let slices = self.fill(stages);
        if slices.is_empty() {
            return None;
        }
        let step = self.next_step;
        self.next_step = step.next();
        let rows: u32 = slices.iter().map(|slice| slice.count).sum();
        let members = slices.iter().map(|slice| self.depart(slice, now)).collect();
        let deadline = now + FLIGHT_DEADLINE + FLIGHT_DEADLINE_PER_ROW * rows;
        self.flights.insert(step, Flight { members, deadline });
        Some(Batch { step, slices })
    }

    /// Notes that `slice` is on its way.
    fn depart(&mut self, slice: &Slice, now: Instant) -> Member {
        let brings = slice.logits.last().map(|offset| slice.position + offset + 1);
        if let Some(sequence) = self.sequences.get_mut(&slice.sequence) {
            sequence.sent = slice.position + slice.count;
            sequence.started(now);
        }
        Member { sequence: slice.sequence, attempt: slice.attempt, rows: slice.count, brings }
    }

    fn fill(&mut self, stages: usize) -> Vec<Slice> {
        let mut slices: Vec<Slice> = Vec::new();
        let decodes_max = self.running.len().div_ceil(stages).clamp(1, DECODES_MAX);
        let (mut decodes, mut rows_left) = (0, BATCH_ROWS_MAX);
        let mut passed_over = VecDeque::new();
        let order: Vec<SequenceId> = self.running.iter().copied().collect();
        for id in order {
            let preempted = !self.running.contains(&id);
            let Some(sequence) = self.sequences.get(&id).filter(|_| !preempted) else { continue };
            let decode = sequence.decodes();
            let count = if decode { 1 } else { sequence.unsent().min(rows_left) };
            let skip = count == 0 || (decode && decodes == decodes_max) || rows_left == 0;
            if skip || !self.provide(id, count, &slices) {
                passed_over.push_back(id);
                continue;
            }
            decodes += usize::from(decode);
            rows_left -= count;
            slices.extend(self.slice(id, count));
        }
        // Preempted sequences have left `running`; those just scheduled go to the end of it.
        let running = std::mem::take(&mut self.running);
        passed_over.retain(|id| running.contains(id));
        self.running = passed_over;
        self.running.extend(slices.iter().map(|slice| slice.sequence));
        self.start_waiting(&mut slices, rows_left);
        slices
    }

    /// Gives waiting sequences their first blocks as long as there are free ones: nobody is preempted for them.
    fn start_waiting(&mut self, slices: &mut Vec<Slice>, mut rows_left: u32) {
        while let Some(id) = self.waiting.front().copied() {
            let Some(sequence) = self.sequences.get_mut(&id) else { break };
            let count = sequence.unsent().min(rows_left);
            let blocks = count.div_ceil(KV_BLOCK_TOKENS) as usize;
            if count == 0 || self.running.len() >= RUNNING_MAX || !self.ledger.take(blocks, &mut sequence.blocks) {
                break;
            }
            rows_left -= count;
            self.waiting.pop_front();
            self.running.push_back(id);
            slices.extend(self.slice(id, count));
        }
    }

    /// Makes sure that `id` has blocks for `count` more tokens, from younger sequences if it must be.
    fn provide(&mut self, id: SequenceId, count: u32, slices: &[Slice]) -> bool {
        loop {
            let Some(sequence) = self.sequences.get_mut(&id) else { return false };
            let wanted = (sequence.sent + count).div_ceil(KV_BLOCK_TOKENS) as usize;
            let missing = wanted.saturating_sub(sequence.blocks.len());
            if self.ledger.take(missing, &mut sequence.blocks) {
                return true;
            }
            let in_batch = |other: SequenceId| slices.iter().any(|slice| slice.sequence == other);
            let Some(victim) = self.running.iter().copied().filter(|other| *other > id && !in_batch(*other)).max()
            else {
                return false;
            };
            self.preempt(victim);
        }
    }

    fn preempt(&mut self, id: SequenceId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        self.ledger.give_back(&mut sequence.blocks);
        sequence.restart();
        self.running.retain(|other| *other != id);
        let place = self.waiting.partition_point(|other| *other < id);
        self.waiting.insert(place, id);
    }

    fn slice(&self, id: SequenceId, count: u32) -> Option<Slice> {
        let sequence = self.sequences.get(&id)?;
        let end = sequence.sent + count;
        let tokens = sequence.history.get(sequence.sent as usize..end as usize)?.to_vec();
        let complete = end as usize == sequence.history.len();
        Some(Slice {
            sequence: id,
            attempt: sequence.attempt,
            position: sequence.sent,
            count,
            tokens,
            blocks: sequence.blocks.clone(),
            logits: if complete { vec![count - 1] } else { Vec::new() },
            sampling: sequence.request.sampling,
        })
    }

    /// Takes back what a micro-batch brought. Answers of another generation or epoch, and duplicates, bring nothing.
    ///
    /// # Errors
    /// A [`Fault`] when micro-batches were lost or the answer does not fit; the caller then rebuilds.
    pub fn complete(&mut self, tokens: &Tokens, now: Instant) -> Result<Happened, Fault> {
        let Some(oldest) = self.expected(tokens.generation, tokens.epoch, tokens.step)? else { return Ok(Vec::new()) };
        let Some(flight) = self.flights.remove(&oldest) else { return Ok(Vec::new()) };
        let labels = self.shape.as_ref().map(|shape| shape.stages.clone()).unwrap_or_default();
        let brought = flight.brought(&tokens.chosen).ok_or(Fault::Mismatch(oldest))?;
        let mut happened = Vec::new();
        for (member, brought) in flight.members.iter().zip(brought) {
            let Some(sequence) = self.sequences.get_mut(&member.sequence) else { continue };
            if sequence.attempt != member.attempt {
                continue;
            }
            sequence.book(&tokens.spent, &labels, member.rows);
            let Some(brought) = brought else { continue };
            let finish = sequence.push(brought.token, now);
            happened.push((member.sequence, Event::Token { token: brought.token, logprob: brought.logprob }));
            if let Some(finish) = finish {
                happened.push((member.sequence, Event::Finished { finish, timings: sequence.timings(now) }));
                self.cancel(member.sequence);
            }
        }
        Ok(happened)
    }

    /// The oldest step in flight if the answer is for it, `None` if the answer is stale.
    fn expected(&self, generation: Generation, epoch: Epoch, step: Step) -> Result<Option<Step>, Fault> {
        let current = self.shape.as_ref().is_some_and(|shape| (shape.generation, shape.epoch) == (generation, epoch));
        match self.flights.first_key_value() {
            Some((oldest, _)) if current && step > *oldest && step < self.next_step => {
                Err(Fault::Gap { expected: *oldest, found: step })
            }
            Some((oldest, _)) if current && step == *oldest => Ok(Some(*oldest)),
            _ => Ok(None),
        }
    }

    /// Notes a refusal; sequences whose work is refused too often fail. `None` when the refusal is stale, else the caller rebuilds.
    pub fn refused(&mut self, refusal: &Refusal) -> Option<(Fault, Happened)> {
        let shape = self.shape.as_ref()?;
        if (shape.generation, shape.epoch) != (refusal.generation, refusal.epoch) {
            return None;
        }
        let stage = shape.stages.get(refusal.slot as usize).map_or("unknown", |label| &label.stage).to_owned();
        let members = self.flights.remove(&refusal.step).map(|flight| flight.members).unwrap_or_default();
        let mut happened = Vec::new();
        for member in members.into_iter().filter(|_| !refusal.passing) {
            let Some(sequence) = self.sequences.get_mut(&member.sequence) else { continue };
            sequence.refusals += 1;
            if sequence.refusals >= REFUSALS_MAX {
                let failure = Failure::Stage { stage: stage.clone(), reason: refusal.reason.clone() };
                happened.push((member.sequence, Event::Failed(failure)));
                self.cancel(member.sequence);
            }
        }
        let fault = Fault::Refused { stage, step: refusal.step, reason: refusal.reason.clone() };
        Some((fault, happened))
    }

    /// Ends sequences whose time is up.
    pub fn expire(&mut self, now: Instant) -> Happened {
        let late: Vec<_> =
            self.sequences.values().filter(|sequence| sequence.deadline <= now).map(|sequence| sequence.id).collect();
        let fail = |id: &SequenceId| {
            let limit_s = self.sequences.get(id).map_or(0, |sequence| sequence.request.deadline.as_secs());
            (*id, Event::Failed(Failure::Deadline { limit_s }))
        };
        let happened = late.iter().map(fail).collect();
        for id in late {
            self.cancel(id);
        }
        happened
    }

    /// Whether a micro-batch should have come back by now.
    pub fn overdue(&self, now: Instant) -> Option<Fault> {
        let (step, flight) = self.flights.first_key_value()?;
        (flight.deadline <= now).then_some(Fault::Overdue(*step))
    }
}

#[cfg(test)]
mod tests;
