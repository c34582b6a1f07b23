//! Embeds the inputs of a request: one sequence for each, a bounded number of them at a time, and vectors of length 1.

use std::time::Duration;

use engine::generate::{Pooling, Rejection, Request, TokenEvent, TokenOptions};
use futures::{StreamExt, TryStreamExt, stream};
use tracing::Instrument;

use super::inference_span::InferenceSpan;
use super::text_model::{EmbeddingModel, TextError, TextModel};
use crate::http::error::ApiError;
use crate::http::limits::{EMBEDDING_INPUTS_MAX, EMBEDDING_VALUES_MAX, EMBEDDINGS_IN_FLIGHT_MAX};
use crate::http::params::{Params, out_of_range};
use crate::http::prompt::Prompt;
use crate::http::served_model::ServedModel;

/// One input as it was encoded, and the parameter that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EmbeddingInput {
    pub(crate) tokens: Vec<u32>,
    /// Its path in the body, such as `input[3]`.
    pub(crate) at: String,
}

/// The checked options of a request for embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EmbeddingOptions {
    pub(crate) pooling: Pooling,
    /// Values of each vector: those of the model, or the first ones of them.
    pub(crate) dimensions: usize,
    pub(crate) priority: i32,
}

/// The embeddings of a request.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Embeddings {
    /// One for each input, in their order.
    pub(crate) vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs.
    pub(crate) prompt_tokens: u64,
    /// The longest time that an input waited for its first micro-batch.
    pub(crate) queued: Duration,
}

/// The outcome of one input.
struct Embedded {
    vector: Vec<f32>,
    tokens: u64,
    queued: Duration,
}

// === impl EmbeddingOptions ===

impl EmbeddingOptions {
    /// Reads `dimensions`, which may cut the vectors of the served model.
    ///
    /// # Errors
    /// A 400 that names the parameter, or the model if it makes no embeddings.
    pub(crate) fn read(params: &Params<'_>, state: &ServedModel) -> Result<Self, ApiError> {
        let EmbeddingModel { dimensions, pooling, .. } = state.text.description().embedding;
        let Some(pooling) = pooling else {
            let message = format!(
                "The model '{}' makes no embeddings: its file says that it ranks texts (pooling_type 4).",
                state.model.name
            );
            return Err(ApiError::unsupported("model", message));
        };
        let wanted = params.whole("dimensions", 1..=i128::from(dimensions.max(1)))?;
        Ok(Self { pooling, dimensions: wanted.map_or(dimensions as usize, |wanted| wanted as usize), priority: 0 })
    }

    /// Most inputs of a request with these options.
    pub(crate) fn inputs_max(&self) -> usize {
        (EMBEDDING_VALUES_MAX / self.dimensions.max(1)).clamp(1, EMBEDDING_INPUTS_MAX)
    }
}

/// The tokens of `inputs`, which came in the parameter `key`: it is the one input, or its elements are.
///
/// # Errors
/// [`TextError`] of the first input that cannot be encoded.
pub(crate) fn encode(text: &dyn TextModel, inputs: Vec<Prompt>, key: &str) -> Result<Vec<EmbeddingInput>, TextError> {
    let is_one = inputs.len() == 1;
    let encode_one = |(index, input)| {
        let tokens = match input {
            Prompt::Text(input) => text.encode_embedded(&input, usize::MAX)?,
            Prompt::Tokens(tokens) => tokens,
        };
        let at = if is_one { key.to_owned() } else { format!("{key}[{index}]") };
        Ok(EmbeddingInput { tokens, at })
    };
    inputs.into_iter().enumerate().map(encode_one).collect()
}

/// Embeds `inputs`. If the client leaves, those that are not embedded yet are cancelled.
///
/// # Errors
/// Refusals of an input without a token or longer than the context, and of one that the pipeline does not
/// accept or that fails. `param` is the parameter that holds all of them.
pub(crate) async fn embed(
    state: &ServedModel,
    inputs: Vec<EmbeddingInput>,
    options: EmbeddingOptions,
    param: &'static str,
) -> Result<Embeddings, ApiError> {
    for input in &inputs {
        check_length(state, input, param)?;
    }
    let embedding = |input: EmbeddingInput| embed_one(state, input, options, param);
    let embedded = stream::iter(inputs).map(embedding).buffered(EMBEDDINGS_IN_FLIGHT_MAX);
    let embedded: Vec<Embedded> = embedded.try_collect().await?;
    Ok(Embeddings {
        prompt_tokens: embedded.iter().map(|one| one.tokens).sum(),
        queued: embedded.iter().map(|one| one.queued).max().unwrap_or_default(),
        vectors: embedded.into_iter().map(|one| one.vector).collect(),
    })
}

fn check_length(state: &ServedModel, input: &EmbeddingInput, param: &'static str) -> Result<(), ApiError> {
    let EmbeddingInput { tokens, at } = input;
    if tokens.is_empty() {
        return Err(out_of_range(at, "at least one token", &serde_json::Value::from("")));
    }
    let (context_tokens, prompt_tokens) = (state.context_tokens(), u32::try_from(tokens.len()).unwrap_or(u32::MAX));
    if prompt_tokens > context_tokens {
        let rejection = Rejection::TooLong { context_tokens, prompt_tokens };
        state.pipeline.refused(&rejection);
        return Err(ApiError::rejected(&rejection, param).about(at.clone()));
    }
    Ok(())
}

async fn embed_one(
    state: &ServedModel,
    input: EmbeddingInput,
    options: EmbeddingOptions,
    param: &'static str,
) -> Result<Embedded, ApiError> {
    let EmbeddingInput { tokens: prompt, at } = input;
    let tokens = prompt.len() as u64;
    let request = Request {
        prompt,
        tokens_max: 0,
        tokens: TokenOptions::GREEDY,
        stop_tokens: Vec::new(),
        deadline: state.settings.generation_time,
        priority: options.priority,
        pooling: Some(options.pooling),
    };
    let span = InferenceSpan::embedding(&state.model.name, request.prompt.len());
    let accepted = state.pipeline.generate(request).instrument(span.span()).await;
    let mut events = accepted.map_err(|rejection| ApiError::rejected(&rejection, param).about(at))?;
    loop {
        match events.next().await {
            Some(TokenEvent::Embedded { vector, timings }) => {
                return Ok(Embedded { vector: unit(&vector, options.dimensions), tokens, queued: timings.queued });
            }
            Some(TokenEvent::Failed(failure)) => return Err(ApiError::failed(&failure)),
            Some(TokenEvent::Started { .. } | TokenEvent::Scored(_) | TokenEvent::Token(_)) => {}
            Some(TokenEvent::Finished { .. }) | None => {
                return Err(ApiError::internal("The pipeline ended the sequence without a result."));
            }
        }
    }
}

/// The first `dimensions` values of `vector`, divided by the length of the vector that they are. A vector of zeros
/// stays as it is.
fn unit(vector: &[f32], dimensions: usize) -> Vec<f32> {
    let kept = &vector[..dimensions.min(vector.len())];
    let squares: f64 = kept.iter().map(|value| f64::from(*value).powi(2)).sum();
    let length = if squares > 0.0 { squares.sqrt() } else { 1.0 };
    kept.iter().map(|value| (f64::from(*value) / length) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_cut_first_and_has_the_length_1_then() {
        assert_eq!(unit(&[3.0, -4.0, 12.0], 3), [3.0 / 13.0, -4.0 / 13.0, 12.0 / 13.0]);
        assert_eq!(unit(&[3.0, -4.0, 12.0], 2), [0.6, -0.8]);
        assert_eq!(unit(&[1e30, 1e30], 2), [0.5_f32.sqrt(); 2]);
        assert_eq!(unit(&[0.0, 0.0], 2), [0.0, 0.0]);
    }

    #[test]
    fn wide_vectors_leave_room_for_fewer_inputs() {
        let options = |dimensions| EmbeddingOptions { pooling: Pooling::Last, dimensions, priority: 0 };
        assert_eq!(options(576).inputs_max(), EMBEDDING_INPUTS_MAX);
        assert_eq!(options(8192).inputs_max(), 512);
        assert_eq!(options(EMBEDDING_VALUES_MAX * 2).inputs_max(), 1);
    }
}
