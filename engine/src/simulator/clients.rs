//! The clients: their requests, the tokens that they get, and the expected tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use schema::SequenceId;
use schema::frame::Sampling;

use super::environment::Environment;
use super::event::Event;
use super::model::{self, Ending};
use super::process_id::ProcessId;
use super::rng::Rng;
use super::time::{MS, Moment, SECOND, duration};
use crate::generate::{Dry, Failure, Finish, Penalties, Pooling, Request, ScoredToken, TokenEvent, TokenOptions};
use crate::testing::StepGrammar;

/// The deadline of requests that are not meant to miss it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3600);
/// Pause before a client that was not accepted asks again.
const SUBMIT_AGAIN: Moment = 300 * MS;

/// The state of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClientState {
    /// Not accepted yet.
    Submitting,
    /// Accepted under this number.
    Streaming(ProcessId, SequenceId),
    /// It got the last event, or left, or its gateway died.
    Done,
}

pub(super) struct Client {
    pub(super) request: Request,
    pub(super) state: ClientState,
    /// It has closed its stream.
    pub(super) has_left: bool,
    /// The events that it is to receive between the beginning and the end, and the end.
    expected: (Vec<TokenEvent>, Ending),
    received: usize,
    began: bool,
    may_miss_deadline: bool,
    /// It asks for more than the least room for keys and values, and is turned away if there is no more.
    may_be_too_long: bool,
}

/// All clients.
pub(super) struct Clients {
    pub(super) all: Vec<Client>,
    streams: BTreeMap<(ProcessId, SequenceId), usize>,
}

// === impl Clients ===

impl Clients {
    /// Draws requests of at most `asked` tokens to a model whose layers have these windows, and schedules them. Those
    /// of more than `room` tokens may be turned away.
    pub(super) fn new(windows: &[u32], room: u64, asked: u64, until: Moment, env: &mut Environment) -> Self {
        let beginnings: Vec<Vec<u32>> = (0..3).map(|_| tokens(32..asked * 2 / 3, &mut env.rng)).collect();
        let all = (0..env.rng.within(3..13) as usize)
            .map(|number| {
                let request = request(&beginnings, asked, &mut env.rng);
                let length = request.prompt.len() as u64 + u64::from(request.tokens_max);
                let at = env.rng.within(300 * MS..until);
                env.at(at, Event::Submits(number));
                if env.rng.permille(150) {
                    let stays = env.rng.within(MS..4 * SECOND);
                    env.at(at + stays, Event::Leaves(number));
                }
                Client {
                    expected: model::reference(windows, &request),
                    may_miss_deadline: request.deadline < REQUEST_TIMEOUT,
                    may_be_too_long: length > room,
                    request,
                    state: ClientState::Submitting,
                    has_left: false,
                    received: 0,
                    began: false,
                }
            })
            .collect();
        Self { all, streams: BTreeMap::new() }
    }

    /// Adds a client with a short request. Returns its number.
    pub(super) fn late(&mut self, windows: &[u32], env: &mut Environment) -> usize {
        let prompt = tokens(1..8, &mut env.rng);
        let prompt = if prompt.is_empty() { vec![7] } else { prompt };
        let tokens = TokenOptions::new(Sampling { seed: 1, ..Sampling::GREEDY });
        let deadline = REQUEST_TIMEOUT;
        let request =
            Request { prompt, tokens_max: 4, tokens, stop_tokens: Vec::new(), deadline, priority: 0, pooling: None };
        self.all.push(Client {
            expected: model::reference(windows, &request),
            may_miss_deadline: false,
            may_be_too_long: false,
            request,
            state: ClientState::Submitting,
            has_left: false,
            received: 0,
            began: false,
        });
        env.tally.add("a healthy gateway got a request", 1);
        self.all.len() - 1
    }

    pub(super) fn are_done(&self) -> bool {
        self.all.iter().all(|client| client.state == ClientState::Done)
    }

    /// The clients that are not done, in words.
    pub(super) fn unfinished(&self) -> String {
        let open = self.all.iter().enumerate().filter(|(_, client)| client.state != ClientState::Done);
        let text = |(number, client): (usize, &Client)| {
            format!("client {number}: {:?}, {} of {} tokens", client.state, client.received, client.expected.0.len())
        };
        open.map(text).collect::<Vec<_>>().join("; ")
    }

    pub(super) fn leaves(&mut self, number: usize) {
        let client = &mut self.all[number];
        client.has_left = true;
        if client.state == ClientState::Submitting {
            client.state = ClientState::Done;
        }
    }

    pub(super) fn accepted(&mut self, number: usize, by: ProcessId, id: SequenceId, env: &mut Environment) {
        self.all[number].state = ClientState::Streaming(by, id);
        self.streams.insert((by, id), number);
        env.tally.add("a request needed more than the least room", self.all[number].may_be_too_long.into());
    }

    /// A client was not accepted, or its gateway is down: it tries again later.
    pub(super) fn submit_again(number: usize, env: &mut Environment) {
        env.after(SUBMIT_AGAIN, Event::Submits(number));
    }

    /// A client's request is too long for the room that there is. True if it does not try again, sooner or later.
    pub(super) fn gives_up(&mut self, number: usize, env: &mut Environment) -> bool {
        let client = &mut self.all[number];
        let gives_up = client.may_be_too_long && env.rng.permille(200);
        if gives_up {
            client.state = ClientState::Done;
            env.tally.add("a request was too long for the room", 1);
        }
        gives_up
    }

    /// Sequences whose clients have closed their streams.
    pub(super) fn left(&mut self, of: ProcessId, env: &mut Environment) -> Vec<SequenceId> {
        let left = self.streams.iter().filter(|((by, _), number)| *by == of && self.all[**number].has_left);
        let left: Vec<_> = left.map(|((_, id), _)| *id).collect();
        env.tally.add("a client left", left.len() as u64);
        for id in &left {
            self.forget(of, *id);
        }
        left
    }

    fn forget(&mut self, by: ProcessId, id: SequenceId) {
        if let Some(number) = self.streams.remove(&(by, id)) {
            self.all[number].state = ClientState::Done;
        }
    }

    /// A gateway died, and its sequences with it.
    pub(super) fn gateway_died(&mut self, gateway: ProcessId, env: &mut Environment) {
        let died: Vec<_> = self.streams.keys().filter(|(by, _)| *by == gateway).copied().collect();
        env.tally.add("a sequence died with its gateway", died.len() as u64);
        for (by, id) in died {
            self.forget(by, id);
        }
    }

    /// Delivers an event to its client. True if the client has closed its stream, so that the sequence is to be
    /// cancelled.
    pub(super) fn receives(
        &mut self,
        of: ProcessId,
        id: SequenceId,
        event: &TokenEvent,
        env: &mut Environment,
    ) -> bool {
        let Some(number) = self.streams.get(&(of, id)).copied() else {
            return false;
        };
        let client = &mut self.all[number];
        let last = event.is_last();
        let wrong = client.check_event(event);
        env.check(wrong.is_none(), || format!("client {number}, sequence {id}: {}", wrong.unwrap_or_default()));
        env.tally.add(kind(event), 1);
        let gone = client.has_left;
        if last || gone {
            env.note(|| format!("client {number}, sequence {id}, ends: {event:?}"));
            self.forget(of, id);
        }
        gone && !last
    }
}

// === impl Client ===

impl Client {
    /// The error in an event, if there is one.
    fn check_event(&mut self, event: &TokenEvent) -> Option<String> {
        match event {
            TokenEvent::Started { cached_tokens } => {
                let in_time = !std::mem::replace(&mut self.began, true) && self.received == 0;
                let fits = (*cached_tokens as usize) < self.request.prompt.len();
                (!in_time || !fits).then(|| format!("began at the wrong time or with {cached_tokens} cached tokens"))
            }
            TokenEvent::Scored(_) | TokenEvent::Token(_) => {
                let expected = self.expected.0.get(self.received);
                let right = expected == Some(event) && self.began;
                let error = (!right).then(|| format!("event {} is {event:?}: expected {expected:?}", self.received));
                self.received += 1;
                error
            }
            TokenEvent::Finished { finish, .. } => {
                let right = Ending::Finished(*finish) == self.expected.1;
                let complete = self.received == self.expected.0.len();
                (!right || !complete).then(|| format!("finished ({finish:?}) after {} tokens", self.received))
            }
            TokenEvent::Embedded { vector, .. } => {
                let right = Ending::Embedded(vector.clone()) == self.expected.1 && self.began;
                (!right).then(|| format!("the embedding is {vector:?}: expected {:?}", self.expected.1))
            }
            TokenEvent::Failed(Failure::Deadline { .. }) if self.may_miss_deadline => None,
            TokenEvent::Failed(failure) => Some(format!("failed: {failure}")),
        }
    }
}

fn kind(event: &TokenEvent) -> &'static str {
    match event {
        TokenEvent::Started { cached_tokens: 0 } => "a sequence began",
        TokenEvent::Started { .. } => "a sequence began with cached blocks",
        TokenEvent::Scored(_) => "a token of a prompt was scored",
        TokenEvent::Token(score) if *score == (ScoredToken { token: score.token, ..ScoredToken::default() }) => {
            "a forced token came"
        }
        TokenEvent::Token(_) => "a token came",
        TokenEvent::Finished { finish: Finish::Stop, .. } => "a sequence stopped",
        TokenEvent::Finished { timings, .. } if timings.attempts > 1 => {
            "a sequence finished after more than one attempt"
        }
        TokenEvent::Finished { .. } => "a sequence finished",
        TokenEvent::Embedded { timings, .. } if timings.attempts > 1 => {
            "a prompt was embedded after more than one attempt"
        }
        TokenEvent::Embedded { .. } => "a prompt was embedded",
        TokenEvent::Failed(_) => "a sequence missed its deadline",
    }
}

/// Options of tokens: half of the requests have none, the others some of all kinds.
fn token_options(rng: &mut Rng) -> TokenOptions {
    let mut options = TokenOptions::new(Sampling { seed: rng.within(0..1000), ..Sampling::GREEDY });
    if rng.permille(500) {
        return options;
    }
    if rng.permille(400) {
        options.grammar = Some(StepGrammar::shared());
    }
    if rng.permille(400) {
        let last_tokens = rng.permille(300).then(|| rng.within(1..20) as u32);
        let breakers = [rng.within(0..97) as u32].into();
        let dry = Dry { multiplier: 1.0, base: 1.5, allowed: 2, last_tokens: 40, breakers };
        let dry = rng.permille(300).then_some(dry);
        options.penalties = Penalties { repetition: 1.5, last_tokens, presence: 0.25, frequency: 0.5, dry };
    }
    if rng.permille(300) {
        options.bias = vec![(rng.within(0..97) as u32, -100.0)];
        options.tokens_min = rng.within(0..8) as u32;
        options.forbidden = vec![tokens(1..3, rng)];
        options.forbidden.retain(|words| !words.is_empty());
    }
    if rng.permille(400) {
        options.alternatives = Some(rng.within(0..3) as u32);
    }
    options.scores_prompt = rng.permille(300);
    options
}

fn tokens(count: std::ops::Range<u64>, rng: &mut Rng) -> Vec<u32> {
    (0..rng.within(count)).map(|_| rng.within(0..97) as u32).collect()
}

fn request(beginnings: &[Vec<u32>], room: u64, rng: &mut Rng) -> Request {
    let mut prompt = if rng.permille(500) { rng.pick(beginnings).clone() } else { Vec::new() };
    prompt.extend(tokens(1..room / 4, rng));
    let left = room - prompt.len() as u64;
    let stop_tokens = if rng.permille(200) { vec![rng.within(0..97) as u32] } else { Vec::new() };
    let deadline = if rng.permille(80) { duration(rng.within(SECOND..8 * SECOND)) } else { REQUEST_TIMEOUT };
    let pooling = rng.permille(200).then(|| *rng.pick(&[Pooling::Mean, Pooling::Last, Pooling::Cls]));
    let tokens_max = if pooling.is_some() { 0 } else { rng.within(1..left.min(48)) as u32 };
    Request {
        prompt,
        tokens_max,
        tokens: if pooling.is_some() { TokenOptions::GREEDY } else { token_options(rng) },
        stop_tokens,
        deadline,
        priority: rng.within(0..3) as i32 - 1,
        pooling,
    }
}
