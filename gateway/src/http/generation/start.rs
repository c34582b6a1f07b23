//! Starts the sequences of checked prompts: encodes them, checks that they fit the context, and submits one request for
//! each choice.

use std::sync::Arc;
use std::time::Instant;

use engine::generate::{Rejection, Request};
use tracing::Instrument;

use super::choice_decoder::ChoiceDecoder;
use super::choice_stream::ChoiceStream;
use super::inference_span::InferenceSpan;
use super::options::GenerationOptions;
use super::text_model::{TextError, TextModel};
use crate::http::error::ApiError;
use crate::http::served_model::ServedModel;

/// Runs `encode` on a blocking thread, so that it does not delay other requests.
///
/// # Errors
/// A 400 about `param` when the text cannot be encoded.
#[expect(clippy::disallowed_methods, reason = "no forward pass: text of at most a body's size is encoded")]
pub(crate) async fn encode<T, F>(state: &ServedModel, param: &'static str, encode: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce(&dyn TextModel) -> Result<T, TextError> + Send + 'static,
{
    let text = Arc::clone(&state.text);
    let encoded = tokio::task::spawn_blocking(move || encode(&*text)).await;
    let encoded = encoded.map_err(|_| ApiError::internal("Encoding the prompt failed."))?;
    encoded.map_err(|error| {
        ApiError::bad_request("invalid_value", format!("The {param} cannot be encoded: {error}.")).about(param)
    })
}

/// Refuses requests for text to a model that makes embeddings only.
///
/// # Errors
/// [`Rejection::EmbedsOnly`], as a 400.
pub(crate) fn check_generates(state: &ServedModel) -> Result<(), ApiError> {
    if !state.text.description().embedding.only {
        return Ok(());
    }
    state.pipeline.refused(&Rejection::EmbedsOnly);
    Err(ApiError::rejected(&Rejection::EmbedsOnly, "model"))
}

/// Compiles the form of the answer, if the options ask for one, to the grammar of its tokens.
///
/// # Errors
/// As for [`AnswerForm::compile`](crate::http::answer_form::AnswerForm::compile).
#[expect(clippy::disallowed_methods, reason = "no forward pass: a grammar is compiled within its limits")]
pub(crate) async fn compile_form(state: &ServedModel, options: &mut GenerationOptions) -> Result<(), ApiError> {
    let Some(form) = options.form.take() else { return Ok(()) };
    let text = Arc::clone(&state.text);
    let compiled = tokio::task::spawn_blocking(move || form.compile(&*text)).await;
    options.tokens.grammar = Some(compiled.map_err(|_| ApiError::internal("Compiling the grammar failed."))??);
    Ok(())
}

/// Submits every choice of every prompt to the pipeline. Choice `j` of prompt `i` becomes choice `i * n + j`.
///
/// # Errors
/// Refusals of a prompt without a token or room for an answer, and of a choice that the pipeline does not accept.
/// Choices that were already submitted are then cancelled.
pub(crate) async fn start(
    state: &ServedModel,
    prompts: Vec<Vec<u32>>,
    options: &GenerationOptions,
    tokens_max: u32,
    param: &'static str,
) -> Result<ChoiceStream, ApiError> {
    check_generates(state)?;
    let context = state.context_tokens();
    for prompt in &prompts {
        if prompt.is_empty() {
            let message = format!("Invalid value for '{param}': expected at least one token, found none.");
            return Err(ApiError::bad_request("invalid_value", message).about(param));
        }
        if prompt.len() >= context as usize {
            let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
            let rejection = Rejection::TooLong { context_tokens: context, prompt_tokens };
            state.pipeline.refused(&rejection);
            return Err(ApiError::rejected(&rejection, param));
        }
    }
    let model_stop_tokens: &[u32] = if options.ignore_eos { &[] } else { state.text.stop_tokens() };
    let stop_tokens: Arc<[u32]> = model_stop_tokens.iter().chain(&options.stop_tokens).copied().collect();
    let prompt_tokens = prompts.iter().map(|prompt| prompt.len() as u64).sum();
    let mut choices = ChoiceStream::new(Arc::clone(&state.pipeline), prompt_tokens, options.choices, options.kept);
    for prompt in prompts {
        for choice in 0..options.choices {
            let mut tokens = options.tokens.clone();
            tokens.sampling.choice = choice;
            let request = Request {
                // A larger limit than the context has room for is lowered. The choice then ends with `length`, like
                // every one that is cut.
                tokens_max: tokens_max.min(context - prompt.len() as u32),
                prompt: prompt.clone(),
                tokens,
                stop_tokens: stop_tokens.to_vec(),
                deadline: state.settings.generation_time,
                priority: options.priority,
                pooling: None,
            };
            let submitted = Instant::now();
            let span = InferenceSpan::open(&state.model.name, options, prompt.len(), request.tokens_max);
            let generation = state.pipeline.generate(request).instrument(span.span()).await;
            let generation = generation.map_err(|rejection| ApiError::rejected(&rejection, param))?;
            let decoder =
                ChoiceDecoder::new(&state.text, options, Arc::clone(&stop_tokens), &prompt, choice, submitted);
            choices.add(generation, decoder.in_span(span));
        }
    }
    Ok(choices)
}
