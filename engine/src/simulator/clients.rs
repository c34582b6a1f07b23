//! Those who ask for sequences: what they send, what they hear, and what they should have heard.

use std::collections::BTreeMap;

use schema::SequenceId;
use schema::frame::Sampling;

use super::dice::Dice;
use super::model;
use super::surroundings::{Event, MS, Moment, Party, SECOND, Surroundings, duration};
use crate::generate::{Failure, Finish, Request, TokenEvent};
use crate::runner::KV_BLOCK_TOKENS;

/// Pause before a client that was not accepted asks again.
const ASK_AGAIN: Moment = 300 * MS;

/// How it stands with a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not accepted yet.
    Asking,
    /// Accepted under this number.
    Listening(Party, SequenceId),
    /// It heard the last event, or left, or its gateway died.
    Done,
}

pub(super) struct Client {
    pub(super) request: Request,
    pub(super) standing: Standing,
    /// It does not listen any more.
    pub(super) has_left: bool,
    expected: Vec<(u32, f32)>,
    heard: usize,
    began: bool,
    impatient: bool,
}

/// All of them.
pub(super) struct Clients {
    pub(super) all: Vec<Client>,
    listening: BTreeMap<(Party, SequenceId), usize>,
}

// === impl Clients ===

impl Clients {
    /// Rolls requests that fit `kv_blocks` blocks and schedules them.
    pub(super) fn new(layers: u32, kv_blocks: u32, until: Moment, around: &mut Surroundings) -> Self {
        let room = u64::from(kv_blocks * KV_BLOCK_TOKENS).min(160);
        let beginnings: Vec<Vec<u32>> = (0..3).map(|_| tokens(32..room * 2 / 3, &mut around.dice)).collect();
        let all = (0..around.dice.within(3..13) as usize)
            .map(|number| {
                let request = request(&beginnings, room, &mut around.dice);
                let at = around.dice.within(300 * MS..until);
                around.at(at, Event::Submits(number));
                if around.dice.permille(150) {
                    let stays = around.dice.within(MS..4 * SECOND);
                    around.at(at + stays, Event::Leaves(number));
                }
                Client {
                    expected: model::reference(layers, &request),
                    impatient: request.deadline < super::REQUEST_TIMEOUT,
                    request,
                    standing: Standing::Asking,
                    has_left: false,
                    heard: 0,
                    began: false,
                }
            })
            .collect();
        Self { all, listening: BTreeMap::new() }
    }

    /// One more, with a short request; its number.
    pub(super) fn late(&mut self, layers: u32, around: &mut Surroundings) -> usize {
        let prompt = tokens(1..8, &mut around.dice);
        let prompt = if prompt.is_empty() { vec![7] } else { prompt };
        let sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 1, choice: 0 };
        let deadline = super::REQUEST_TIMEOUT;
        let request = Request { prompt, tokens_max: 4, sampling, stop_tokens: Vec::new(), deadline, priority: 0 };
        self.all.push(Client {
            expected: model::reference(layers, &request),
            impatient: false,
            request,
            standing: Standing::Asking,
            has_left: false,
            heard: 0,
            began: false,
        });
        around.tally.add("a healthy gateway got a request", 1);
        self.all.len() - 1
    }

    pub(super) fn are_done(&self) -> bool {
        self.all.iter().all(|client| client.standing == Standing::Done)
    }

    /// Who is not done, in words.
    pub(super) fn unfinished(&self) -> String {
        let open = self.all.iter().enumerate().filter(|(_, client)| client.standing != Standing::Done);
        let words = |(number, client): (usize, &Client)| {
            format!("client {number}: {:?}, {} of {} tokens", client.standing, client.heard, client.expected.len())
        };
        open.map(words).collect::<Vec<_>>().join("; ")
    }

    pub(super) fn leaves(&mut self, number: usize) {
        let client = &mut self.all[number];
        client.has_left = true;
        if client.standing == Standing::Asking {
            client.standing = Standing::Done;
        }
    }

    pub(super) fn accepted(&mut self, number: usize, by: Party, id: SequenceId) {
        self.all[number].standing = Standing::Listening(by, id);
        self.listening.insert((by, id), number);
    }

    /// A client was not accepted, or nobody is there to accept it.
    pub(super) fn ask_again(number: usize, around: &mut Surroundings) {
        around.after(ASK_AGAIN, Event::Submits(number));
    }

    /// Sequences whose clients do not listen any more.
    pub(super) fn left(&mut self, of: Party, around: &mut Surroundings) -> Vec<SequenceId> {
        let left = self.listening.iter().filter(|((by, _), number)| *by == of && self.all[**number].has_left);
        let left: Vec<_> = left.map(|((_, id), _)| *id).collect();
        around.tally.add("a client left", left.len() as u64);
        for id in &left {
            self.forget(of, *id);
        }
        left
    }

    fn forget(&mut self, by: Party, id: SequenceId) {
        if let Some(number) = self.listening.remove(&(by, id)) {
            self.all[number].standing = Standing::Done;
        }
    }

    /// A gateway died, and with it what it knew.
    pub(super) fn gateway_died(&mut self, gateway: Party, around: &mut Surroundings) {
        let died: Vec<_> = self.listening.keys().filter(|(by, _)| *by == gateway).copied().collect();
        around.tally.add("a sequence died with its gateway", died.len() as u64);
        for (by, id) in died {
            self.forget(by, id);
        }
    }

    /// A client hears an event. True when it does not listen any more, so that the sequence is to be cancelled.
    pub(super) fn hears(&mut self, of: Party, id: SequenceId, event: &TokenEvent, around: &mut Surroundings) -> bool {
        let Some(number) = self.listening.get(&(of, id)).copied() else {
            return false;
        };
        let client = &mut self.all[number];
        let last = matches!(event, TokenEvent::Finished { .. } | TokenEvent::Failed(_));
        let wrong = client.judge(event);
        around.law(wrong.is_none(), || format!("client {number}, sequence {id}: {}", wrong.unwrap_or_default()));
        around.tally.add(kind(event), 1);
        let gone = client.has_left;
        if last || gone {
            around.note(|| format!("client {number}, sequence {id}, ends: {event:?}"));
            self.forget(of, id);
        }
        gone && !last
    }
}

// === impl Client ===

impl Client {
    /// What is wrong with an event, if something is.
    fn judge(&mut self, event: &TokenEvent) -> Option<String> {
        match event {
            TokenEvent::Began { cached_tokens } => {
                let in_time = !std::mem::replace(&mut self.began, true) && self.heard == 0;
                let fits = (*cached_tokens as usize) < self.request.prompt.len();
                (!in_time || !fits).then(|| format!("began at the wrong time or with {cached_tokens} known tokens"))
            }
            TokenEvent::Token { token, logprob } => {
                let expected = self.expected.get(self.heard).copied();
                self.heard += 1;
                let right = expected == Some((*token, *logprob)) && self.began;
                (!right).then(|| format!("token {} is {token} ({logprob}): expected {expected:?}", self.heard - 1))
            }
            TokenEvent::Finished { finish, .. } => {
                let stops = self.expected.last().is_some_and(|(token, _)| self.request.stop_tokens.contains(token));
                let right = *finish == if stops { Finish::Stop } else { Finish::Length };
                let complete = self.heard == self.expected.len();
                (!right || !complete).then(|| format!("finished ({finish:?}) after {} tokens", self.heard))
            }
            TokenEvent::Failed(Failure::Deadline { .. }) if self.impatient => None,
            TokenEvent::Failed(failure) => Some(format!("failed: {failure}")),
        }
    }
}

fn kind(event: &TokenEvent) -> &'static str {
    match event {
        TokenEvent::Began { cached_tokens: 0 } => "a sequence began",
        TokenEvent::Began { .. } => "a sequence began with what was known",
        TokenEvent::Token { .. } => "a token came",
        TokenEvent::Finished { finish: Finish::Stop, .. } => "a sequence stopped",
        TokenEvent::Finished { timings, .. } if timings.attempts > 1 => {
            "a sequence finished after more than one attempt"
        }
        TokenEvent::Finished { .. } => "a sequence finished",
        TokenEvent::Failed(_) => "a sequence missed its deadline",
    }
}

fn tokens(count: std::ops::Range<u64>, dice: &mut Dice) -> Vec<u32> {
    (0..dice.within(count)).map(|_| dice.within(0..97) as u32).collect()
}

fn request(beginnings: &[Vec<u32>], room: u64, dice: &mut Dice) -> Request {
    let mut prompt = if dice.permille(500) { dice.pick(beginnings).clone() } else { Vec::new() };
    prompt.extend(tokens(1..room / 4, dice));
    let left = room - prompt.len() as u64;
    let stop_tokens = if dice.permille(200) { vec![dice.within(0..97) as u32] } else { Vec::new() };
    let deadline = if dice.permille(80) { duration(dice.within(SECOND..8 * SECOND)) } else { super::REQUEST_TIMEOUT };
    Request {
        prompt,
        tokens_max: dice.within(1..left.min(48)) as u32,
        sampling: Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: dice.within(0..1000),
            choice: 0,
        },
        stop_tokens,
        deadline,
        priority: dice.within(0..3) as i32 - 1,
    }
}
