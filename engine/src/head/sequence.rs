//! The truth about one sequence: its tokens, how far the pipeline has them, and what it cost.

use std::time::Instant;

use schema::frame::Spent;
use schema::{Attempt, SequenceId};

use crate::generate::{Finish, Request, StageTime, Timings, share};

/// One sequence, from admission to its last token.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    pub(crate) attempt: Attempt,
    pub(crate) request: Request,
    /// The prompt and every token made so far.
    pub(crate) history: Vec<u32>,
    /// Tokens `..sent` of the history were sent to the pipeline in this attempt.
    pub(crate) sent: u32,
    /// Blocks of keys and values it owns in this attempt.
    pub(crate) blocks: Vec<u32>,
    /// How often a stage refused its work.
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

/// A stage as a sequence's account names it.
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
            blocks: Vec::new(),
            refusals: 0,
            deadline: now + request.deadline,
            clock: Clock { admitted: now, started: None, first_token: None, last_token: None },
            stages: Vec::new(),
            request,
        }
    }

    /// Tokens known but not yet sent.
    pub(crate) fn unsent(&self) -> u32 {
        self.history.len() as u32 - self.sent
    }

    /// Whether its next step is a single made token.
    pub(crate) fn decodes(&self) -> bool {
        self.unsent() == 1 && self.sent > 0
    }

    /// Forgets what the pipeline holds of it; its history is sent again. The caller has taken its blocks back.
    pub(crate) fn restart(&mut self) {
        self.attempt = self.attempt.next();
        self.sent = 0;
    }

    pub(crate) fn started(&mut self, now: Instant) {
        self.clock.started.get_or_insert(now);
    }

    /// Appends a made token; says whether that ended the sequence.
    pub(crate) fn push(&mut self, token: u32, now: Instant) -> Option<Finish> {
        self.history.push(token);
        self.refusals = 0;
        self.clock.first_token.get_or_insert(now);
        self.clock.last_token = Some(now);
        let made = self.history.len() - self.request.prompt.len();
        if self.request.stop_tokens.contains(&token) {
            Some(Finish::Stop)
        } else if made >= self.request.tokens_max as usize {
            Some(Finish::Length)
        } else {
            None
        }
    }

    /// Books what the stages did for `rows` rows of this sequence.
    pub(crate) fn book(&mut self, spent: &[Spent], labels: &[StageLabel], rows: u32) {
        for spent in spent {
            let Some(label) = labels.get(spent.slot as usize) else { continue };
            let found = self.stages.iter_mut().find(|time| time.stage == label.stage && time.layers == label.layers);
            let compute = share(spent, rows);
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
