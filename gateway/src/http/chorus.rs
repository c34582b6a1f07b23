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
    /// Choices of one prompt; they stand side by side.
    choices_each: usize,
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
    /// Of these, those that no choice had to compute.
    pub(crate) cached_tokens: u64,
    /// Of all choices, stop tokens included.
    pub(crate) completion_tokens: u64,
}

// === impl Chorus ===

impl Chorus {
    /// No sequence yet; the prompts have `prompt_tokens` together, and each gets `choices_each` choices.
    pub(crate) fn new(prompt_tokens: u64, choices_each: u32) -> Self {
        Self { running: StreamMap::new(), voices: Vec::new(), prompt_tokens, choices_each: choices_each as usize }
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
        let of_prompt = |voices: &[Voice]| voices.iter().map(Voice::cached_tokens).min().unwrap_or(0);
        let cached_tokens = self.voices.chunks(self.choices_each).map(of_prompt).map(u64::from).sum();
        Usage { prompt_tokens: self.prompt_tokens, cached_tokens, completion_tokens }
    }

    /// The `timings` field.
    pub(crate) fn timings(&self) -> serde_json::Value {
        let all: Vec<_> = self.voices.iter().map(Voice::timings).collect();
        timings::json(&timings::together(&all), self.usage(), self.voices.len() as u64)
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
