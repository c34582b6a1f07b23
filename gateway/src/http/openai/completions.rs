//! `POST /v1/completions`.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use warp::reply::Response;

use super::logprobs::CompletionLogprobs;
use super::options::ValidOptions;
use super::params::{Params, parse_object};
use super::prompt::{self, Prompt};
use super::response::{Shape, finish_reason, respond};
use crate::http::app_state::AppState;
use crate::http::error::ApiError;
use crate::http::generation::choice_decoder::Ended;
use crate::http::generation::start;
use crate::http::generation::text_model::{TextError, TextModel};
use crate::http::generation::token_logprob::TokenLogprob;

/// OpenAI's default for `max_tokens`.
const TOKENS_MAX_DEFAULT: u32 = 16;

/// A completion request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidCompletion {
    prompts: Vec<Prompt>,
    options: ValidOptions,
}

/// The response bodies of a completion.
struct Completion;

/// A choice of a whole answer or of a chunk.
#[derive(Debug, Serialize)]
pub(crate) struct CompletionChoice {
    text: String,
    index: usize,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
}

/// Completes prompts.
///
/// # Errors
/// Refusals of a request that is not valid, and of a pipeline that cannot serve it.
pub(crate) async fn create(state: Arc<AppState>, body: Bytes) -> Result<Response, ApiError> {
    let ValidCompletion { prompts, options } = ValidCompletion::read(&body, &state)?;
    drop(body);
    let prompts = start::encode(&state, "prompt", move |text| encode(text, prompts)).await?;
    let tokens_max = options.generation.tokens_max.unwrap_or(TOKENS_MAX_DEFAULT);
    respond::<Completion>(&state, prompts, &options, tokens_max, "prompt").await
}

// === impl ValidCompletion ===

impl ValidCompletion {
    fn read(body: &[u8], state: &AppState) -> Result<Self, ApiError> {
        let map = parse_object(body)?;
        let params = Params::new(&map);
        let options = ValidOptions::read(&params, logprobs, &state.model, &state.settings)?;
        let prompts_max = state.settings.choices_max / options.generation.choices;
        let prompts = prompt::read(&params, state.text.vocab_size(), prompts_max.max(1))?;
        Ok(Self { prompts, options })
    }
}

// === impl Completion ===

impl Shape for Completion {
    const ID_PREFIX: &'static str = "cmpl";
    const OBJECT: &'static str = "text_completion";
    const CHUNK_OBJECT: &'static str = "text_completion";
    type Choice = CompletionChoice;
    type ChunkChoice = CompletionChoice;
    type Logprobs = CompletionLogprobs;

    fn logprobs(tokens: &[TokenLogprob], offset: usize) -> CompletionLogprobs {
        CompletionLogprobs::new(tokens, offset)
    }

    fn choice(
        index: usize,
        text: String,
        logprobs: Option<CompletionLogprobs>,
        ended: Option<Ended>,
    ) -> CompletionChoice {
        CompletionChoice { text, index, logprobs, finish_reason: ended.map(finish_reason) }
    }

    fn opening(_: usize) -> Option<CompletionChoice> {
        None
    }

    fn piece(index: usize, text: &str, logprobs: Option<CompletionLogprobs>) -> CompletionChoice {
        Self::choice(index, text.to_owned(), logprobs, None)
    }

    fn ending(index: usize, ended: Ended) -> CompletionChoice {
        Self::choice(index, String::new(), None, Some(ended))
    }
}

/// True if the completion asks for log-probabilities. Frames carry the chosen token's probability only, so `logprobs`
/// must be 0 if it is given.
fn logprobs(params: &Params<'_>) -> Result<bool, ApiError> {
    match params.whole("logprobs", 0..=5)? {
        None => Ok(false),
        Some(0) => Ok(true),
        Some(_) => {
            let message = "'logprobs' above 0 is not supported by this server yet.";
            Err(ApiError::unsupported("logprobs", message))
        }
    }
}

fn encode(text: &dyn TextModel, prompts: Vec<Prompt>) -> Result<Vec<Vec<u32>>, TextError> {
    let encode_one = |prompt| match prompt {
        Prompt::Text(prompt) => text.encode_prompt(&prompt),
        Prompt::Tokens(tokens) => Ok(tokens),
    };
    prompts.into_iter().map(encode_one).collect()
}
