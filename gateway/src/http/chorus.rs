//! The sequences of one request, side by side. Dropping it cancels all of them.

use std::pin::Pin;
use std::time::Instant;

use engine::generate::{Event, Generation};
use futures::stream::{self, Stream, StreamExt};
use tokio_stream::StreamMap;

use super::error::ApiError;
use super::timings;
use super::voice::{Ended, Heard, Voice};

/// Events of one sequence; `None` when they break off without an end.
type Events = Pin<Box<dyn Stream<Item = Option<Event>> + Send>>;

/// The sequences of one request, by choice.
pub(crate) struct Chorus {
    running: StreamMap<usize, Events>,
    voices: Vec<Voice>,
    prompt_tokens: u64,
}

/// What one choice says next.
#[derive(Debug)]
pub(crate) struct Said {
    /// Which.
    pub(crate) choice: usize,
    /// Its text, and whether it ended.
    pub(crate) heard: Heard,
}

/// Tokens of a request, counted exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of all prompts, each once.
    pub(crate) prompt_tokens: u64,
    /// Of all choices, stop tokens included.
    pub(crate) completion_tokens: u64,
}

// === impl Chorus ===

impl Chorus {
    /// No sequence yet; the prompts have `prompt_tokens` together.
    pub(crate) fn new(prompt_tokens: u64) -> Self {
        Self { running: StreamMap::new(), voices: Vec::new(), prompt_tokens }
    }

    /// Adds the next choice.
    pub(crate) fn add(&mut self, generation: Generation, voice: Voice) {
        self.running.insert(self.voices.len(), events(generation));
        self.voices.push(voice);
    }

    /// How many choices there are.
    pub(crate) fn choices(&self) -> usize {
        self.voices.len()
    }

    /// Whether every choice has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.running.is_empty()
    }

    /// What is said next, of whichever choice; `None` when all have ended. Cancel-safe.
    ///
    /// # Errors
    /// The first failure of a choice; the others are cancelled.
    pub(crate) async fn next(&mut self) -> Result<Option<Said>, ApiError> {
        while let Some((choice, event)) = self.running.next().await {
            let Some(event) = event else {
                return Err(self.fail(ApiError::internal("The pipeline dropped the sequence without a word.")));
            };
            let heard = self.voices[choice].hear(event, Instant::now());
            match &heard.end {
                Some(Err(failure)) => return Err(self.fail(ApiError::failed(failure))),
                // Ends the sequence where a stop string ended its text.
                Some(Ok(Ended::Stop | Ended::Length)) => drop(self.running.remove(&choice)),
                None if heard.text.is_empty() => continue,
                None => {}
            }
            return Ok(Some(Said { choice, heard }));
        }
        Ok(None)
    }

    fn fail(&mut self, error: ApiError) -> ApiError {
        self.running.clear();
        error
    }

    /// Tokens so far.
    pub(crate) fn usage(&self) -> Usage {
        let completion_tokens = self.voices.iter().map(Voice::tokens).sum();
        Usage { prompt_tokens: self.prompt_tokens, completion_tokens }
    }

    /// The `timings` field.
    pub(crate) fn timings(&self) -> serde_json::Value {
        let all: Vec<_> = self.voices.iter().map(Voice::timings).collect();
        let usage = self.usage();
        let sequences = self.voices.len() as u64;
        timings::json(&timings::together(&all), usage.prompt_tokens, usage.completion_tokens, sequences)
    }
}

/// The events of `generation`, with `None` after the last one.
fn events(generation: Generation) -> Events {
    let events = stream::unfold(Some(generation), |generation| async {
        let mut generation = generation?;
        match generation.next().await {
            Some(event) => Some((Some(event), Some(generation))),
            None => Some((None, None)),
        }
    });
    Box::pin(events)
}
