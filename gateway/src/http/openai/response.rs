//! The response bodies of both completion endpoints, whole and in chunks: the parts they share. Each endpoint
//! implements [`Shape`] in its own file.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng;
use serde::Serialize;
use warp::reply::Response;

use super::logprobs::{PromptLogprobs, characters, of_prompt};
use super::options::ValidOptions;
use super::usage::UsageBody;
use crate::http::app_state::AppState;
use crate::http::error::ApiError;
use crate::http::generation::choice_decoder::{Ended, ToolCallDelta};
use crate::http::generation::choice_stream::ChoiceDelta;
use crate::http::generation::dialect::{Choice, Dialect, Events};
use crate::http::generation::timings::TimingsBody;
use crate::http::generation::token_logprob::TokenLogprob;
use crate::http::generation::totals::Totals;
use crate::http::generation::{reply, start};

/// Marks the end of every stream.
const DONE: &str = "[DONE]";

/// The parts of the bodies that differ between the two endpoints.
pub(crate) trait Shape: Send + 'static {
    /// The prefix of an answer's id.
    const ID_PREFIX: &'static str;
    /// `object` of a whole answer.
    const OBJECT: &'static str;
    /// `object` of a chunk.
    const CHUNK_OBJECT: &'static str;
    /// True if the prompt's log-probabilities stand beside the choices, because all choices have the same prompt.
    const PROMPT_LOGPROBS_ON_TOP: bool;
    type Choice: Serialize;
    type ChunkChoice: Serialize;
    type Logprobs: Serialize;

    /// The log-probabilities of `tokens`. `offset` is the number of characters of the answer before them.
    fn logprobs(tokens: &[TokenLogprob], offset: usize) -> Self::Logprobs;

    fn choice(index: usize, choice: Choice, logprobs: Option<Self::Logprobs>) -> Self::Choice;

    /// The chunk that opens a choice, if the endpoint has one.
    fn opening(index: usize) -> Option<Self::ChunkChoice>;

    fn piece(index: usize, text: &str, logprobs: Option<Self::Logprobs>) -> Self::ChunkChoice;

    /// The chunk of more reasoning, if the endpoint has any.
    fn reasoning(_index: usize, _text: &str, _logprobs: Option<Self::Logprobs>) -> Option<Self::ChunkChoice> {
        None
    }

    /// The chunks of a part of a call, if the endpoint has any.
    fn calls(_index: usize, _call: &ToolCallDelta) -> Vec<Self::ChunkChoice> {
        Vec::new()
    }

    fn ending(index: usize, ended: Ended) -> Self::ChunkChoice;
}

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Answer<S> {
    id: String,
    created_s: u64,
    model: String,
    /// True if the request asks for log-probabilities.
    logprobs: bool,
    /// True if a stream ends with a chunk that has the usage.
    include_usage: bool,
    /// Number of characters streamed so far, by choice.
    offsets: Vec<usize>,
    shape: std::marker::PhantomData<S>,
}

/// The body of a whole answer or of one chunk.
#[derive(Debug, Serialize)]
pub(crate) struct Envelope<C> {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<C>,
    /// Absent in a stream without usage. In a stream with usage, null in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsBody>,
    /// Absent unless the request asks for the prompt's log-probabilities and the endpoint has them here.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
}

/// The `finish_reason` of a choice that ended.
pub(crate) fn finish_reason(ended: Ended) -> &'static str {
    match ended {
        Ended::Stop => "stop",
        Ended::Length => "length",
        Ended::ToolCalls => "tool_calls",
    }
}

// === impl Answer ===

impl<S: Shape> Answer<S> {
    /// An answer of `model` with a new id.
    pub(crate) fn new(model: &str, logprobs: bool, include_usage: bool) -> Self {
        Self {
            id: format!("{}-{:032x}", S::ID_PREFIX, rand::rng().random::<u128>()),
            created_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            model: model.to_owned(),
            logprobs,
            include_usage,
            offsets: Vec::new(),
            shape: std::marker::PhantomData,
        }
    }

    fn logprobs(&self, tokens: &[TokenLogprob], offset: usize) -> Option<S::Logprobs> {
        self.logprobs.then(|| S::logprobs(tokens, offset))
    }

    fn envelope<C>(&self, object: &'static str, choices: Vec<C>) -> Envelope<C> {
        let (id, model) = (self.id.clone(), self.model.clone());
        Envelope {
            id,
            object,
            created: self.created_s,
            model,
            choices,
            usage: None,
            timings: None,
            prompt_logprobs: None,
        }
    }

    fn chunk(&self, choice: S::ChunkChoice) -> Envelope<S::ChunkChoice> {
        let usage = self.include_usage.then_some(None);
        Envelope { usage, ..self.envelope(S::CHUNK_OBJECT, vec![choice]) }
    }
}

/// Starts the choices of `prompts` and answers with what they generate, in the shape `S`. `param` names the parameter
/// that the prompts come from.
///
/// # Errors
/// Refusals of the prompts and of the pipeline, and a failure of a choice before anything is sent.
pub(crate) async fn respond<S: Shape>(
    state: &AppState,
    prompts: Vec<Vec<u32>>,
    options: &ValidOptions,
    tokens_max: u32,
    param: &'static str,
) -> Result<Response, ApiError> {
    let choices = start::start(state, prompts, &options.generation, tokens_max, param).await?;
    let answer = Answer::<S>::new(&state.model.name, options.generation.logprobs, options.include_usage);
    reply::respond(choices, answer, options.stream, state.settings.ping_period).await
}

impl<S: Shape> Dialect for Answer<S> {
    type Body = Envelope<S::Choice>;

    fn body(&self, choices: Vec<Choice>, Totals { usage, timings }: Totals) -> Self::Body {
        let prompt = choices.first().filter(|_| S::PROMPT_LOGPROBS_ON_TOP).map(|choice| of_prompt(&choice.prompt));
        let prompt_logprobs = prompt.filter(|prompt| !prompt.is_empty());
        let choice = |(index, choice): (usize, Choice)| {
            let logprobs = self.logprobs(&choice.logprobs, 0);
            S::choice(index, choice, logprobs)
        };
        let choices = choices.into_iter().enumerate().map(choice).collect();
        let usage = Some(Some(usage.into()));
        Envelope { usage, timings: Some(timings), prompt_logprobs, ..self.envelope(S::OBJECT, choices) }
    }

    fn open(&mut self, choices: usize, _: u64, events: &mut Events) {
        self.offsets = vec![0; choices];
        (0..choices).filter_map(S::opening).for_each(|opening| events.push(&self.chunk(opening)));
    }

    fn delta(&mut self, ChoiceDelta { choice, delta }: &ChoiceDelta, totals: Option<Totals>, events: &mut Events) {
        // The tokens of one delta belong to its first chunk. Those of calls come in a chunk of their own.
        let mut tokens = &delta.logprobs[..];
        let offset = self.offsets[*choice];
        self.offsets[*choice] += characters(tokens);
        if !delta.reasoning.is_empty() {
            let logprobs = self.logprobs(std::mem::take(&mut tokens), offset);
            S::reasoning(*choice, &delta.reasoning, logprobs)
                .into_iter()
                .for_each(|chunk| events.push(&self.chunk(chunk)));
        }
        if !delta.text.is_empty() || !tokens.is_empty() {
            let logprobs = self.logprobs(tokens, offset);
            events.push(&self.chunk(S::piece(*choice, &delta.text, logprobs)));
        }
        for call in &delta.tool_calls {
            S::calls(*choice, call).into_iter().for_each(|chunk| events.push(&self.chunk(chunk)));
        }
        if let Some(Ok(ended)) = delta.end {
            let timings = totals.filter(|_| !self.include_usage).map(|totals| totals.timings);
            events.push(&Envelope { timings, ..self.chunk(S::ending(*choice, ended)) });
        }
    }

    fn close(&mut self, Totals { usage, timings }: Totals, events: &mut Events) {
        if self.include_usage {
            let last = self.envelope::<S::ChunkChoice>(S::CHUNK_OBJECT, Vec::new());
            events.push(&Envelope { usage: Some(Some(usage.into())), timings: Some(timings), ..last });
        }
        events.push_text(DONE);
    }

    fn fail(&mut self, error: &ApiError, events: &mut Events) {
        events.push(&error.body());
        events.push_text(DONE);
    }
}
