//! `POST /v1/completions`.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use super::logprobs::{self, CompletionLogprobs, PromptLogprobs};
use super::options::ValidOptions;
use super::params::Params;
use super::response::{Shape, finish_reason, respond};
use super::unsupported;
use crate::http::error::ApiError;
use crate::http::generation::choice_decoder::Ended;
use crate::http::generation::dialect::Choice;
use crate::http::generation::infill::{self, Gap};
use crate::http::generation::options::GenerationOptions;
use crate::http::generation::start;
use crate::http::generation::text_model::{TextError, TextModel};
use crate::http::generation::token_logprob::{TokenLogprob, TokenNames};
use crate::http::json_body::JsonBody;
use crate::http::prompt::{self, Prompt};
use crate::http::served_model::ServedModel;

/// OpenAI's default for `max_tokens`.
const TOKENS_MAX_DEFAULT: u32 = 16;

/// A completion request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidCompletion {
    prompts: Vec<Prompt>,
    /// The text behind the gap that the model fills in, if there is one.
    suffix: Option<String>,
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
    /// Absent unless the request asks for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
}

/// Completes prompts.
///
/// # Errors
/// Refusals of a request that is not valid, and of a pipeline that cannot serve it.
pub(crate) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let ValidCompletion { prompts, suffix, mut options } = ValidCompletion::read(&body, &state)?;
    drop(body);
    start::compile_form(&state, &mut options.generation).await?;
    let prompts = start::encode(&state, "prompt", move |text| encode(text, prompts, suffix.as_deref())).await?;
    let tokens_max = options.generation.tokens_max.unwrap_or(TOKENS_MAX_DEFAULT);
    respond::<Completion>(&state, prompts, &options, tokens_max, "prompt").await
}

// === impl ValidCompletion ===

impl ValidCompletion {
    fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<Self, ApiError> {
        let params = Params::new(body);
        unsupported::refuse_of_chats(&params)?;
        let mut options = ValidOptions::read(&params, top_logprobs, &state.model, &state.settings, &*state.text)?;
        let ValidOptions { generation, stream, .. } = &mut options;
        generation.echo = params.flag("echo")?;
        generation.tokens.scores_prompt |= generation.echo && generation.logprobs;
        best_of(&params, generation, *stream, state.settings.choices_max)?;
        let prompts_max = state.settings.choices_max / options.generation.choices;
        let prompts = prompt::read(&params, "prompt", state.text.vocab_size(), prompts_max.max(1) as usize)?;
        let suffix = suffix(&params, &prompts, &*state.text)?;
        Ok(Self { prompts, suffix, options })
    }
}

// === impl Completion ===

impl Shape for Completion {
    const ID_PREFIX: &'static str = "cmpl";
    const OBJECT: &'static str = "text_completion";
    const CHUNK_OBJECT: &'static str = "text_completion";
    const PROMPT_ON_TOP: bool = false;
    type Choice = CompletionChoice;
    type ChunkChoice = CompletionChoice;
    type Logprobs = CompletionLogprobs;

    fn logprobs(tokens: &[TokenLogprob], offset: usize, names: TokenNames) -> CompletionLogprobs {
        CompletionLogprobs::new(tokens, offset, names)
    }

    fn choice(index: usize, choice: Choice, logprobs: Option<CompletionLogprobs>) -> CompletionChoice {
        let Choice { text, prompt, ended, .. } = choice;
        let prompt_logprobs = (!prompt.is_empty()).then(|| logprobs::of_prompt(&prompt));
        CompletionChoice { text, index, logprobs, finish_reason: ended.map(finish_reason), prompt_logprobs }
    }

    fn opening(_: usize) -> Option<CompletionChoice> {
        None
    }

    fn piece(index: usize, text: &str, logprobs: Option<CompletionLogprobs>) -> CompletionChoice {
        Self::choice(index, Choice { text: text.to_owned(), ..Choice::default() }, logprobs)
    }

    fn ending(index: usize, ended: Ended) -> CompletionChoice {
        Self::choice(index, Choice { ended: Some(ended), ..Choice::default() }, None)
    }
}

/// Reads `suffix`: the model fills in the gap between it and each prompt.
fn suffix(params: &Params<'_>, prompts: &[Prompt], text: &dyn TextModel) -> Result<Option<String>, ApiError> {
    let Some(suffix) = params.text("suffix")?.filter(|suffix| !suffix.is_empty()) else { return Ok(None) };
    infill::check(text, "suffix")?;
    if params.flag("echo")? {
        let message = "Invalid value for 'suffix': expected 'echo' to be false beside it.";
        return Err(ApiError::bad_request("invalid_value", message).about("suffix"));
    }
    if prompts.iter().any(|prompt| matches!(prompt, Prompt::Tokens(_))) {
        let message = "Invalid value for 'suffix': expected texts in 'prompt' beside it, found token ids.";
        return Err(ApiError::bad_request("invalid_value", message).about("suffix"));
    }
    Ok(Some(suffix.to_owned()))
}

/// Number of the likeliest tokens to report beside each token, if log-probabilities are asked for.
fn top_logprobs(params: &Params<'_>) -> Result<Option<u32>, ApiError> {
    Ok(params.whole("logprobs", 0..=5)?.map(|top| top as u32))
}

/// Reads `best_of`: so many choices are generated, and the best `n` of them answered.
fn best_of(
    params: &Params<'_>,
    options: &mut GenerationOptions,
    stream: bool,
    choices_max: u32,
) -> Result<(), ApiError> {
    let range = i128::from(options.choices)..=i128::from(choices_max);
    let Some(best_of) = params.whole("best_of", range)?.map(|best_of| best_of as u32) else { return Ok(()) };
    if best_of > options.choices {
        if stream {
            let message = "Invalid value for 'best_of': expected 'stream' to be false beside it, or the value of 'n'.";
            return Err(ApiError::bad_request("invalid_value", message).about("best_of"));
        }
        options.kept = std::mem::replace(&mut options.choices, best_of);
    }
    Ok(())
}

fn encode(text: &dyn TextModel, prompts: Vec<Prompt>, suffix: Option<&str>) -> Result<Vec<Vec<u32>>, TextError> {
    let encode_one = |prompt| match (prompt, suffix) {
        (Prompt::Text(prompt), Some(suffix)) => infill::encode(text, Gap { prefix: &prompt, suffix }),
        (Prompt::Text(prompt), None) => text.encode_prompt(&prompt),
        (Prompt::Tokens(tokens), _) => Ok(tokens),
    };
    prompts.into_iter().map(encode_one).collect()
}
