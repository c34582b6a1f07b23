//! `POST /embedding`, also under `/embeddings`: the vectors of texts or of prompts of tokens, in llama-server's form.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use crate::http::error::{ApiError, json_response};
use crate::http::generation::embedding::{self, EmbeddingOptions};
use crate::http::generation::start;
use crate::http::json_body::JsonBody;
use crate::http::params::{Params, out_of_range};
use crate::http::prompt::{self, Prompt};
use crate::http::served_model::ServedModel;

/// The one supported `embd_normalize`: a vector is divided by its Euclidean length.
const EUCLIDEAN: u64 = 2;

/// A request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidEmbedding {
    inputs: Vec<Prompt>,
    /// The parameter that holds them.
    key: &'static str,
    options: EmbeddingOptions,
}

/// The vector of one input. llama-server answers with a list of vectors for each, because a model without pooling has
/// one for each token.
#[derive(Debug, Serialize)]
struct EmbeddingEntry {
    index: usize,
    embedding: [Vec<f32>; 1],
}

/// Embeds the texts in `content`, or in `input`, its newer name.
///
/// # Errors
/// Refusals of a request that is not valid, and of a pipeline that cannot serve it.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let ValidEmbedding { inputs, key, options } = ValidEmbedding::read(&body, &state)?;
    drop(body);
    let inputs = start::encode(&state, key, move |text| embedding::encode(text, inputs, key)).await?;
    let embeddings = embedding::embed(&state, inputs, options, key).await?;
    let entry = |(index, vector)| EmbeddingEntry { index, embedding: [vector] };
    let entries: Vec<_> = embeddings.vectors.into_iter().enumerate().map(entry).collect();
    Ok(json_response(StatusCode::OK, &entries))
}

// === impl ValidEmbedding ===

impl ValidEmbedding {
    fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<Self, ApiError> {
        let params = Params::new(body);
        let normalise = params.get("embd_normalize");
        if let Some(other) = normalise.filter(|value| value.as_u64() != Some(EUCLIDEAN)) {
            return Err(out_of_range("embd_normalize", "2 (the Euclidean norm)", other));
        }
        let (content, input) = (params.get("content"), params.get("input"));
        if let (Some(content), Some(_)) = (content, input) {
            return Err(out_of_range("content", "either content or input, its newer name", content));
        }
        let key = if input.is_some() { "input" } else { "content" };
        let options = EmbeddingOptions::read(&params, state)?;
        let inputs = prompt::read(&params, key, state.text.vocab_size(), options.inputs_max())?;
        Ok(Self { inputs, key, options })
    }
}
