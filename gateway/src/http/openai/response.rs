//! The response bodies of both completion endpoints, whole and in chunks: the parts they share. Each endpoint
//! implements [`Shape`] in its own file.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng;
use serde::Serialize;
use warp::reply::Response;

use super::logprobs::{PromptLogprobs, characters, of_prompt};
use super::options::{StreamedUsage, ValidOptions};
use super::usage::UsageBody;
use crate::http::error::ApiError;
use crate::http::generation::choice_decoder::{Ended, ToolCallDelta};
use crate::http::generation::choice_stream::ChoiceDelta;
use crate::http::generation::dialect::{Choice, Dialect, Events};
use crate::http::generation::prompt_progress::PromptProgress;
use crate::http::generation::timings::TimingsBody;
use crate::http::generation::token_logprob::{TokenLogprob, TokenNames};
use crate::http::generation::totals::Totals;
use crate::http::generation::usage::Usage;
use crate::http::generation::{reply, start};
use crate::http::served_model::ServedModel;

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
    /// True if what is said of the prompt's tokens stands beside the choices, because all choices have the same prompt.
    const PROMPT_ON_TOP: bool;
    type Choice: Serialize;
    type ChunkChoice: Serialize;
    type Logprobs: Serialize;

    /// The log-probabilities of `tokens`. `offset` is the number of characters of the answer before them.
    fn logprobs(tokens: &[TokenLogprob], offset: usize, names: TokenNames) -> Self::Logprobs;

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
    /// The way in which log-probabilities name tokens, if the request asks for them.
    logprobs: Option<TokenNames>,
    streamed_usage: StreamedUsage,
    wants_progress: bool,
    /// Tokens of the request so far, in a stream.
    usage: Usage,
    /// The tokens of the prompts, if the request asks for their ids.
    prompts: Option<Vec<Vec<u32>>>,
    /// True for each choice whose prompt's tokens are still to be streamed.
    prompt_due: Vec<bool>,
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
    choices: Vec<Identified<C>>,
    /// Absent in a stream without usage. In a stream with usage at its end, null in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageBody>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsBody>,
    /// In a stream that asks for it, until its first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_progress: Option<PromptProgress>,
    /// Absent unless the request asks for the prompt's log-probabilities and the endpoint has them here.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
    /// Absent unless the request asks for it and the endpoint has it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
}

/// A choice with the ids of its tokens, in vLLM's fields.
#[derive(Debug, Serialize)]
pub(crate) struct Identified<C> {
    #[serde(flatten)]
    choice: C,
    /// Absent unless the request asks for it and the endpoint has it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    /// Absent unless the request asks for it. A chunk has those that no chunk before it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
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
    /// An answer of `model` with a new id. `prompts` are the tokens of its prompts.
    fn new(model: &str, options: &ValidOptions, prompts: &[Vec<u32>]) -> Self {
        Self {
            id: format!("{}-{:032x}", S::ID_PREFIX, rand::rng().random::<u128>()),
            created_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            model: model.to_owned(),
            logprobs: options.generation.logprobs.then_some(options.token_names),
            streamed_usage: options.usage,
            wants_progress: options.progress,
            usage: Usage::default(),
            prompts: options.generation.token_ids.then(|| prompts.to_vec()),
            prompt_due: Vec::new(),
            offsets: Vec::new(),
            shape: std::marker::PhantomData,
        }
    }

    fn logprobs(&self, tokens: &[TokenLogprob], offset: usize) -> Option<S::Logprobs> {
        self.logprobs.map(|names| S::logprobs(tokens, offset, names))
    }

    /// The tokens of the prompt of the choice `index` of `choices`, if the request asks for their ids.
    fn prompt(&self, index: usize, choices: usize) -> Option<Vec<u32>> {
        let prompts = self.prompts.as_ref()?;
        prompts.get(index / (choices / prompts.len().max(1)).max(1)).cloned()
    }

    /// The same for the chunk of a choice, unless an earlier one had them.
    fn due_prompt(&mut self, index: usize) -> Option<Vec<u32>> {
        let is_due = std::mem::take(self.prompt_due.get_mut(index)?);
        self.prompt(index, self.prompt_due.len()).filter(|_| is_due)
    }

    fn envelope<C>(&self, object: &'static str, choices: Vec<Identified<C>>) -> Envelope<C> {
        let (id, model) = (self.id.clone(), self.model.clone());
        Envelope {
            id,
            object,
            created: self.created_s,
            model,
            choices,
            usage: None,
            timings: None,
            prompt_progress: None,
            prompt_logprobs: None,
            prompt_token_ids: None,
        }
    }

    /// The chunk with `choice`, which has the number `index`, and with `tokens` of it.
    fn chunk(&mut self, index: usize, choice: S::ChunkChoice, tokens: &[u32]) -> Envelope<S::ChunkChoice> {
        let usage = match self.streamed_usage {
            StreamedUsage::None => None,
            StreamedUsage::AtEnd => Some(None),
            StreamedUsage::Always => Some(Some(self.usage.into())),
        };
        let prompt = self.due_prompt(index);
        let token_ids = self.prompts.as_ref().filter(|_| !tokens.is_empty()).map(|_| tokens.to_vec());
        let (on_top, in_choice) = if S::PROMPT_ON_TOP { (prompt, None) } else { (None, prompt) };
        let choice = Identified { choice, prompt_token_ids: in_choice, token_ids };
        Envelope { usage, prompt_token_ids: on_top, ..self.envelope(S::CHUNK_OBJECT, vec![choice]) }
    }
}

/// Starts the choices of `prompts` and answers with what they generate, in the shape `S`. `param` names the parameter
/// that the prompts come from.
///
/// # Errors
/// Refusals of the prompts and of the pipeline, and a failure of a choice before anything is sent.
pub(crate) async fn respond<S: Shape>(
    state: &ServedModel,
    prompts: Vec<Vec<u32>>,
    options: &ValidOptions,
    tokens_max: u32,
    param: &'static str,
) -> Result<Response, ApiError> {
    let answer = Answer::<S>::new(&state.model.name, options, &prompts);
    let choices = start::start(state, prompts, &options.generation, tokens_max, param).await?;
    reply::respond(choices, answer, options.stream, state.settings.ping_period).await
}

impl<S: Shape> Dialect for Answer<S> {
    type Body = Envelope<S::Choice>;

    fn body(&self, choices: Vec<Choice>, Totals { usage, timings }: Totals) -> Self::Body {
        let prompt = choices.first().filter(|_| S::PROMPT_ON_TOP).map(|choice| of_prompt(&choice.prompt));
        let prompt_logprobs = prompt.filter(|prompt| !prompt.is_empty());
        let count = choices.len();
        let choice = |(index, mut choice): (usize, Choice)| {
            let prompt_token_ids = self.prompt(index, count).filter(|_| !S::PROMPT_ON_TOP);
            let token_ids = self.prompts.as_ref().map(|_| std::mem::take(&mut choice.token_ids));
            let logprobs = self.logprobs(&choice.logprobs, 0);
            Identified { choice: S::choice(index, choice, logprobs), prompt_token_ids, token_ids }
        };
        let prompt_token_ids = self.prompt(0, count).filter(|_| S::PROMPT_ON_TOP);
        let choices = choices.into_iter().enumerate().map(choice).collect();
        let usage = Some(Some(usage.into()));
        Envelope {
            usage,
            timings: Some(timings),
            prompt_logprobs,
            prompt_token_ids,
            ..self.envelope(S::OBJECT, choices)
        }
    }

    fn open(&mut self, choices: usize, prompt_tokens: u64, events: &mut Events) {
        self.usage.prompt_tokens = prompt_tokens;
        self.offsets = vec![0; choices];
        // A prompt that all choices share is said once.
        self.prompt_due = (0..choices).map(|choice| choice == 0 || !S::PROMPT_ON_TOP).collect();
        for choice in 0..choices {
            S::opening(choice).into_iter().for_each(|opening| events.push(&self.chunk(choice, opening, &[])));
        }
    }

    fn delta(&mut self, delta: &ChoiceDelta, totals: Option<Totals>, events: &mut Events) {
        let ChoiceDelta { choice, delta, usage } = delta;
        self.usage = *usage;
        // The tokens of one delta belong to its first chunk. Those of calls come in a chunk of their own.
        let mut tokens = &delta.logprobs[..];
        let mut ids = &delta.token_ids[..];
        let offset = self.offsets[*choice];
        self.offsets[*choice] += characters(tokens);
        if !delta.reasoning.is_empty() {
            let logprobs = self.logprobs(std::mem::take(&mut tokens), offset);
            S::reasoning(*choice, &delta.reasoning, logprobs)
                .into_iter()
                .for_each(|chunk| events.push(&self.chunk(*choice, chunk, std::mem::take(&mut ids))));
        }
        let belong_to_calls = !delta.tool_calls.is_empty() && !ids.is_empty();
        if !delta.text.is_empty() || !tokens.is_empty() || belong_to_calls {
            let logprobs = self.logprobs(tokens, offset);
            let piece = S::piece(*choice, &delta.text, logprobs);
            events.push(&self.chunk(*choice, piece, std::mem::take(&mut ids)));
        }
        for call in &delta.tool_calls {
            S::calls(*choice, call).into_iter().for_each(|chunk| events.push(&self.chunk(*choice, chunk, &[])));
        }
        if let Some(Ok(ended)) = delta.end {
            let timings = totals.filter(|_| self.streamed_usage == StreamedUsage::None).map(|totals| totals.timings);
            events.push(&Envelope { timings, ..self.chunk(*choice, S::ending(*choice, ended), ids) });
        }
    }

    fn wants_progress(&self) -> bool {
        self.wants_progress
    }

    fn progress(&self, progress: PromptProgress, events: &mut Events) {
        let choice = Identified { choice: S::piece(0, "", None), prompt_token_ids: None, token_ids: None };
        let chunk = self.envelope(S::CHUNK_OBJECT, vec![choice]);
        events.push(&Envelope { prompt_progress: Some(progress), ..chunk });
    }

    fn close(&mut self, Totals { usage, timings }: Totals, events: &mut Events) {
        if self.streamed_usage != StreamedUsage::None {
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
