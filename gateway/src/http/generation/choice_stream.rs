//! The sequences of one request, merged into one stream of deltas. Dropping the stream cancels all of them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use engine::generate::{Pipeline, TokenEvent, TokenStream};
use futures::stream::{self, Stream, StreamExt};
use tokio_stream::StreamMap;

use super::choice_decoder::{ChoiceDecoder, Delta};
use super::dialect::Choice;
use super::prompt_progress::{Observed, PromptProgress};
use super::timings::{self, TimingsBody};
use super::totals::Totals;
use super::usage::Usage;
use crate::http::error::ApiError;

/// Events of one sequence. A `None` item means that they broke off without an end.
type Events = Pin<Box<dyn Stream<Item = Option<TokenEvent>> + Send>>;

/// The running sequences of one request, with a decoder for each choice.
pub(crate) struct ChoiceStream {
    pipeline: Arc<dyn Pipeline>,
    submitted: Instant,
    /// The sequences' numbers in the pipeline's reports.
    sequences: Vec<u64>,
    running: StreamMap<usize, Events>,
    decoders: Vec<ChoiceDecoder>,
    /// Number of tokens that each choice had when its last reasoning came.
    reasoning_tokens: Vec<u64>,
    prompt_tokens: u64,
    /// Choices of each prompt. Those of one prompt have consecutive numbers.
    choices_each: usize,
    /// Choices of each prompt that are in the answer. 0 if all are.
    kept: usize,
}

/// The next delta of one choice.
#[derive(Debug)]
pub(crate) struct ChoiceDelta {
    /// Number of the choice.
    pub(crate) choice: usize,
    /// Its new text, and the reason if it ended.
    pub(crate) delta: Delta,
    /// Tokens of the request so far.
    pub(crate) usage: Usage,
}

// === impl ChoiceStream ===

impl ChoiceStream {
    /// A stream without sequences of `pipeline` yet. The prompts have `prompt_tokens` tokens together, and each gets
    /// `choices_each` choices, of which the best `kept` are in the answer, or all if that is 0.
    pub(crate) fn new(pipeline: Arc<dyn Pipeline>, prompt_tokens: u64, choices_each: u32, kept: u32) -> Self {
        Self {
            pipeline,
            submitted: Instant::now(),
            sequences: Vec::new(),
            running: StreamMap::new(),
            decoders: Vec::new(),
            reasoning_tokens: Vec::new(),
            prompt_tokens,
            choices_each: choices_each as usize,
            kept: kept as usize,
        }
    }

    /// Adds the next choice.
    pub(crate) fn add(&mut self, generation: TokenStream, decoder: ChoiceDecoder) {
        self.sequences.push(generation.id());
        self.running.insert(self.decoders.len(), events(generation));
        self.decoders.push(decoder);
        self.reasoning_tokens.push(0);
    }

    /// Number of choices.
    pub(crate) fn choices(&self) -> usize {
        self.decoders.len()
    }

    /// Of all choices, those that are in the answer: of each prompt the ones with the best log-probability a token, the
    /// best first.
    pub(crate) fn best(&self, choices: Vec<Choice>) -> Vec<Choice> {
        if self.kept == 0 {
            return choices;
        }
        let mut scored: Vec<_> =
            choices.into_iter().zip(self.decoders.iter().map(ChoiceDecoder::mean_logprob)).collect();
        for of_prompt in scored.chunks_mut(self.choices_each) {
            of_prompt.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        }
        let is_kept = |index: usize| index % self.choices_each < self.kept;
        let kept = scored.into_iter().enumerate().filter(|(index, _)| is_kept(*index));
        kept.map(|(_, (choice, _))| choice).collect()
    }

    /// Tokens of all prompts, each prompt counted once.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    /// The part of the prompts that is computed. `None` once tokens come. Choices of one prompt share its first one's
    /// keys and values, so that only that one counts.
    pub(crate) fn prompt_progress(&self) -> Option<PromptProgress> {
        let first = self.sequences.iter().zip(&self.decoders).step_by(self.choices_each.max(1));
        let observed = first.map(|(id, decoder)| Observed { id: *id, cached_tokens: decoder.cached_tokens() });
        let observed: Vec<_> = observed.collect();
        PromptProgress::new(&observed, &self.pipeline.sequences(), self.submitted.elapsed())
    }

    /// True if every choice has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.running.is_empty()
    }

    /// The next delta of any choice. `None` when all have ended. Cancel-safe.
    ///
    /// # Errors
    /// The first failure of a choice. The other choices are cancelled.
    pub(crate) async fn next(&mut self) -> Result<Option<ChoiceDelta>, ApiError> {
        while let Some((choice, event)) = self.running.next().await {
            let Some(event) = event else {
                return Err(self.fail(ApiError::internal("The pipeline ended the sequence without a result.")));
            };
            let delta = self.decoders[choice].push_event(event, Instant::now());
            if !delta.reasoning.is_empty() {
                self.reasoning_tokens[choice] = self.decoders[choice].tokens();
            }
            match &delta.end {
                Some(Err(failure)) => return Err(self.fail(ApiError::failed(failure))),
                // Dropping the events cancels the sequence if a stop string ended its text.
                Some(Ok(_)) => drop(self.running.remove(&choice)),
                None if delta.is_empty() => continue,
                None => {}
            }
            return Ok(Some(ChoiceDelta { choice, delta, usage: self.usage() }));
        }
        Ok(None)
    }

    fn fail(&mut self, error: ApiError) -> ApiError {
        self.running.clear();
        error
    }

    /// Token counts so far.
    fn usage(&self) -> Usage {
        let completion_tokens = self.decoders.iter().map(ChoiceDecoder::tokens).sum();
        let of_prompt =
            |decoders: &[ChoiceDecoder]| decoders.iter().map(ChoiceDecoder::cached_tokens).min().unwrap_or(0);
        let cached_tokens = self.decoders.chunks(self.choices_each).map(of_prompt).map(u64::from).sum();
        let reasoning_tokens = self.reasoning_tokens.iter().sum();
        Usage { prompt_tokens: self.prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens }
    }

    /// Usage and timings so far.
    pub(crate) fn totals(&self) -> Totals {
        let all: Vec<_> = self.decoders.iter().map(ChoiceDecoder::timings).collect();
        let (usage, sequences) = (self.usage(), self.decoders.len() as u64);
        Totals { usage, timings: TimingsBody::new(&timings::merge(&all), usage, sequences) }
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
