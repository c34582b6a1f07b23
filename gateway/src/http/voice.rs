//! One sequence's tokens on their way to a client: counted, decoded, cut at stop strings.

use std::sync::Arc;
use std::time::Instant;

use engine::generate::{Event, Failure, Finish, Timings};

use super::score::Score;
use super::text::{Decoder, TextModel};
use super::timings::Watch;
use crate::text::StopStrings;

/// Turns one sequence's events into text.
pub(crate) struct Voice {
    text: Arc<dyn TextModel>,
    decoder: Box<dyn Decoder>,
    stops: StopStrings,
    /// Tokens that end the sequence and are no text.
    stop_tokens: Arc<[u32]>,
    /// Whether scores are wanted.
    scored: bool,
    /// Scores of tokens whose text is still held back.
    scores: Vec<Score>,
    tokens: u64,
    /// Tokens of the prompt that needed no computing.
    cached_tokens: u32,
    watch: Watch,
    timings: Option<Timings>,
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// At a stop token or a stop string.
    Stop,
    /// At the most tokens it may have.
    Length,
}

/// What one event says to the client.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Text to send, perhaps none yet.
    pub(crate) text: String,
    /// Scores of the tokens in it.
    pub(crate) scores: Vec<Score>,
    /// Whether it was the last.
    pub(crate) end: Option<Result<Ended, Failure>>,
}

// === impl Ended ===

impl Ended {
    /// As `finish_reason` says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

// === impl Voice ===

impl Voice {
    /// The voice of a sequence handed over `now`.
    pub(crate) fn new(
        text: &Arc<dyn TextModel>,
        stops: Vec<String>,
        stop_tokens: Arc<[u32]>,
        scored: bool,
        now: Instant,
    ) -> Self {
        Self {
            decoder: text.decoder(),
            text: Arc::clone(text),
            stops: StopStrings::new(stops),
            stop_tokens,
            scored,
            scores: Vec::new(),
            tokens: 0,
            cached_tokens: 0,
            watch: Watch::new(now),
            timings: None,
        }
    }

    /// Tokens that came, a stop token included.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Tokens of the prompt that needed no computing.
    pub(crate) fn cached_tokens(&self) -> u32 {
        self.cached_tokens
    }

    /// How long it took, where.
    pub(crate) fn timings(&self) -> Timings {
        self.timings.clone().unwrap_or_else(|| self.watch.timings())
    }

    /// Takes the next event.
    pub(crate) fn hear(&mut self, event: Event, now: Instant) -> Heard {
        match event {
            Event::Began { cached_tokens } => {
                self.cached_tokens = cached_tokens;
                Heard::default()
            }
            Event::Token { token, logprob } => self.token(token, logprob, now),
            Event::Finished { finish, timings } => self.finish(finish, timings),
            Event::Failed(failure) => Heard { end: Some(Err(failure)), ..Heard::default() },
        }
    }

    fn token(&mut self, token: u32, logprob: f32, now: Instant) -> Heard {
        self.tokens += 1;
        self.watch.token(now);
        if self.stop_tokens.contains(&token) {
            return Heard::default();
        }
        if self.scored {
            self.scores.push(Score { token, bytes: self.text.token_bytes(token), logprob });
        }
        let text = self.decoder.push(token);
        self.say(&text, None)
    }

    fn finish(&mut self, finish: Finish, timings: Timings) -> Heard {
        self.timings = Some(timings);
        let ended = match finish {
            Finish::Stop => Ended::Stop,
            Finish::Length => Ended::Length,
        };
        let held = self.decoder.finish();
        self.say(&held, Some(ended))
    }

    /// Lets `text` through as far as the stop strings allow; with `ended`, also what they held back.
    fn say(&mut self, text: &str, ended: Option<Ended>) -> Heard {
        let stopped = self.stops.push(text);
        let mut text = stopped.emit;
        let end = if stopped.matched.is_some() { Some(Ended::Stop) } else { ended };
        if end.is_some() {
            text.push_str(&self.stops.finish());
        }
        let scores = if text.is_empty() && end.is_none() { Vec::new() } else { std::mem::take(&mut self.scores) };
        Heard { text, scores, end: end.map(Ok) }
    }
}
