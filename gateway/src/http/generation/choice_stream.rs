//! The sequences of one request, side by side. Dropping it cancels all of them.

use std::pin::Pin;
use std::time::Instant;

use engine::generate::{TokenEvent, TokenStream};
use futures::stream::{self, Stream, StreamExt};
use tokio_stream::StreamMap;

use super::choice_decoder::{ChoiceDecoder, Delta, Ended};
use super::dialect::Totals;
use super::timings::{self, TimingsBody};
use crate::http::error::ApiError;

/// Events of one sequence; `None` when they break off without an end.
type Events = Pin<Box<dyn Stream<Item = Option<TokenEvent>> + Send>>;

/// The sequences of one request, by choice.
pub(crate) struct ChoiceStream {
    running: StreamMap<usize, Events>,
    decoders: Vec<ChoiceDecoder>,
    prompt_tokens: u64,
    /// Choices of one prompt; they stand side by side.
    choices_each: usize,
}

/// What one choice says next.
#[derive(Debug)]
pub(crate) struct ChoiceDelta {
    /// Which.
    pub(crate) choice: usize,
    /// Its text, and whether it ended.
    pub(crate) delta: Delta,
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

// === impl ChoiceStream ===

impl ChoiceStream {
    /// No sequence yet; the prompts have `prompt_tokens` together, and each gets `choices_each` choices.
    pub(crate) fn new(prompt_tokens: u64, choices_each: u32) -> Self {
        Self { running: StreamMap::new(), decoders: Vec::new(), prompt_tokens, choices_each: choices_each as usize }
    }

    /// Adds the next choice.
    pub(crate) fn add(&mut self, generation: TokenStream, decoder: ChoiceDecoder) {
        self.running.insert(self.decoders.len(), events(generation));
        self.decoders.push(decoder);
    }

    /// How many choices there are.
    pub(crate) fn choices(&self) -> usize {
        self.decoders.len()
    }

    /// Whether every choice has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.running.is_empty()
    }

    /// The next delta, of whichever choice comes first; `None` when all have ended. Cancel-safe.
    ///
    /// # Errors
    /// The first failure of a choice; the others are cancelled.
    pub(crate) async fn next(&mut self) -> Result<Option<ChoiceDelta>, ApiError> {
        while let Some((choice, event)) = self.running.next().await {
            let Some(event) = event else {
                return Err(self.fail(ApiError::internal("The pipeline dropped the sequence without a word.")));
            };
            let delta = self.decoders[choice].hear(event, Instant::now());
            match &delta.end {
                Some(Err(failure)) => return Err(self.fail(ApiError::failed(failure))),
                // Ends the sequence where a stop string ended its text.
                Some(Ok(Ended::Stop | Ended::Length)) => drop(self.running.remove(&choice)),
                None if delta.text.is_empty() => continue,
                None => {}
            }
            return Ok(Some(ChoiceDelta { choice, delta }));
        }
        Ok(None)
    }

    fn fail(&mut self, error: ApiError) -> ApiError {
        self.running.clear();
        error
    }

    /// Tokens so far.
    fn usage(&self) -> Usage {
        let completion_tokens = self.decoders.iter().map(ChoiceDecoder::tokens).sum();
        let of_prompt =
            |decoders: &[ChoiceDecoder]| decoders.iter().map(ChoiceDecoder::cached_tokens).min().unwrap_or(0);
        let cached_tokens = self.decoders.chunks(self.choices_each).map(of_prompt).map(u64::from).sum();
        Usage { prompt_tokens: self.prompt_tokens, cached_tokens, completion_tokens }
    }

    /// Usage and timings so far.
    pub(crate) fn totals(&self) -> Totals {
        let all: Vec<_> = self.decoders.iter().map(ChoiceDecoder::timings).collect();
        let (usage, sequences) = (self.usage(), self.decoders.len() as u64);
        Totals { usage, timings: TimingsBody::new(&timings::together(&all), usage, sequences) }
    }
}

/// The events of `generation`, with `None` after the last one.
fn events(generation: TokenStream) -> Events {
    let events = stream::unfold(Some(generation), |generation| async {
        let mut generation = generation?;
        match generation.next().await {
            Some(event) => Some((Some(event), Some(generation))),
            None => Some((None, None)),
        }
    });
    Box::pin(events)
}
