//! Turns one sequence's token events into deltas: counts the tokens, decodes them, and ends the text at a stop string.

use std::sync::Arc;
use std::time::Instant;

use engine::generate::{Failure, Finish, Timings, TokenEvent};

use super::text_model::{Decoder, TextModel};
use super::timings::ArrivalTimes;
use super::token_logprob::TokenLogprob;
use crate::text::StopStrings;

/// The decoder of one choice: turns the events of its sequence into text.
pub(crate) struct ChoiceDecoder {
    text: Arc<dyn TextModel>,
    decoder: Box<dyn Decoder>,
    stops: StopStrings,
    /// Tokens that end the sequence. They add no text.
    stop_tokens: Arc<[u32]>,
    /// True if the request asks for log-probabilities.
    wants_logprobs: bool,
    /// Log-probabilities of the tokens whose text is still held back.
    logprobs: Vec<TokenLogprob>,
    tokens: u64,
    /// Tokens of the prompt that were in the prefix cache, so that they were not computed.
    cached_tokens: u32,
    arrivals: ArrivalTimes,
    timings: Option<Timings>,
}

/// The reason why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A stop token or a stop string came.
    Stop,
    /// The choice has as many tokens as it may have.
    Length,
}

/// The part that one token event adds to a choice.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// Text to send. It may be empty.
    pub(crate) text: String,
    /// Log-probabilities of the tokens in `text`, if the request asks for them.
    pub(crate) logprobs: Vec<TokenLogprob>,
    /// The reason why the choice ended. Set on its last delta only.
    pub(crate) end: Option<Result<Ended, Failure>>,
}

// === impl ChoiceDecoder ===

impl ChoiceDecoder {
    /// The decoder of a sequence that is submitted at `now`.
    pub(crate) fn new(
        text: &Arc<dyn TextModel>,
        stops: Vec<String>,
        stop_tokens: Arc<[u32]>,
        wants_logprobs: bool,
        now: Instant,
    ) -> Self {
        Self {
            decoder: text.decoder(),
            text: Arc::clone(text),
            stops: StopStrings::new(stops),
            stop_tokens,
            wants_logprobs,
            logprobs: Vec::new(),
            tokens: 0,
            cached_tokens: 0,
            arrivals: ArrivalTimes::new(now),
            timings: None,
        }
    }

    /// Number of tokens received, a stop token included.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Tokens of the prompt that were in the prefix cache, so that they were not computed.
    pub(crate) fn cached_tokens(&self) -> u32 {
        self.cached_tokens
    }

    /// The pipeline's timings if the sequence finished, else the timings measured here.
    pub(crate) fn timings(&self) -> Timings {
        self.timings.clone().unwrap_or_else(|| self.arrivals.timings())
    }

    /// Takes the next event and returns the delta it adds.
    pub(crate) fn push_event(&mut self, event: TokenEvent, now: Instant) -> Delta {
        match event {
            TokenEvent::Started { cached_tokens } => {
                self.cached_tokens = cached_tokens;
                Delta::default()
            }
            TokenEvent::Token { token, logprob } => self.token(token, logprob, now),
            TokenEvent::Finished { finish, timings } => self.finish(finish, timings),
            TokenEvent::Failed(failure) => Delta { end: Some(Err(failure)), ..Delta::default() },
        }
    }

    fn token(&mut self, token: u32, logprob: f32, now: Instant) -> Delta {
        self.tokens += 1;
        self.arrivals.token(now);
        if self.stop_tokens.contains(&token) {
            return Delta::default();
        }
        if self.wants_logprobs {
            self.logprobs.push(TokenLogprob { token, bytes: self.text.token_bytes(token), logprob });
        }
        let text = self.decoder.push(token);
        self.delta(&text, None)
    }

    fn finish(&mut self, finish: Finish, timings: Timings) -> Delta {
        self.timings = Some(timings);
        let ended = match finish {
            Finish::Stop => Ended::Stop,
            Finish::Length => Ended::Length,
        };
        let held = self.decoder.finish();
        self.delta(&held, Some(ended))
    }

    /// A delta with the part of `text` that can no longer belong to a stop string. With `ended`, it also has the text
    /// held back so far.
    fn delta(&mut self, text: &str, ended: Option<Ended>) -> Delta {
        let stopped = self.stops.push(text);
        let mut text = stopped.emit;
        let end = if stopped.matched.is_some() { Some(Ended::Stop) } else { ended };
        if end.is_some() {
            text.push_str(&self.stops.finish());
        }
        let logprobs = if text.is_empty() && end.is_none() { Vec::new() } else { std::mem::take(&mut self.logprobs) };
        Delta { text, logprobs, end: end.map(Ok) }
    }
}
