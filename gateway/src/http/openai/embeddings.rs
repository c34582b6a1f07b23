//! `POST /v1/embeddings`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use super::options::PRIORITIES;
use super::params::{Params, out_of_range};
use super::unsupported;
use crate::http::error::{ApiError, json_response};
use crate::http::generation::embedding::{self, EmbeddingOptions};
use crate::http::generation::start;
use crate::http::json_body::JsonBody;
use crate::http::prompt::{self, Prompt};
use crate::http::served_model::ServedModel;

/// A request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidEmbeddings {
    inputs: Vec<Prompt>,
    options: EmbeddingOptions,
    encoding: Encoding,
}

/// The form of the vectors in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// An array of numbers.
    Float,
    /// Base64 of the values' bytes, 32 bits each, little endian.
    Base64,
}

#[derive(Debug, Serialize)]
struct EmbeddingList<'a> {
    object: &'static str,
    data: Vec<EmbeddingEntry>,
    model: &'a str,
    usage: EmbeddingUsage,
}

#[derive(Debug, Serialize)]
struct EmbeddingEntry {
    object: &'static str,
    index: usize,
    embedding: EncodedVector,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum EncodedVector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize)]
struct EmbeddingUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Embeds texts or prompts of tokens.
///
/// # Errors
/// Refusals of a request that is not valid, and of a pipeline that cannot serve it.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let ValidEmbeddings { inputs, options, encoding } = ValidEmbeddings::read(&body, &state)?;
    drop(body);
    let inputs = start::encode(&state, "input", move |text| embedding::encode(text, inputs, "input")).await?;
    let embeddings = embedding::embed(&state, inputs, options, "input").await?;
    let entry = |(index, vector)| EmbeddingEntry { object: "embedding", index, embedding: encoding.encode(vector) };
    let list = EmbeddingList {
        object: "list",
        data: embeddings.vectors.into_iter().enumerate().map(entry).collect(),
        model: &state.model.name,
        usage: EmbeddingUsage { prompt_tokens: embeddings.prompt_tokens, total_tokens: embeddings.prompt_tokens },
    };
    Ok(json_response(StatusCode::OK, &list))
}

// === impl ValidEmbeddings ===

impl ValidEmbeddings {
    fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<Self, ApiError> {
        let params = Params::new(body);
        params.text("user")?;
        unsupported::refuse_of_embeddings(&params)?;
        let encoding = Encoding::read(&params)?;
        let priority = params.whole("priority", PRIORITIES)?.map_or(0, |priority| priority as i32);
        let options = EmbeddingOptions { priority, ..EmbeddingOptions::read(&params, state)? };
        let inputs = prompt::read(&params, "input", state.text.vocab_size(), options.inputs_max())?;
        Ok(Self { inputs, options, encoding })
    }
}

// === impl Encoding ===

impl Encoding {
    fn read(params: &Params<'_>) -> Result<Self, ApiError> {
        match params.text("encoding_format")? {
            None | Some("float") => Ok(Self::Float),
            Some("base64") => Ok(Self::Base64),
            Some(other) => Err(out_of_range("encoding_format", "float or base64", &other.into())),
        }
    }

    fn encode(self, vector: Vec<f32>) -> EncodedVector {
        match self {
            Self::Float => EncodedVector::Float(vector),
            Self::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                EncodedVector::Base64(STANDARD.encode(bytes))
            }
        }
    }
}
