//! `POST /api/embed` and the older `POST /api/embeddings`. An empty input has no vector, as in Ollama.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use super::metrics::ns;
use super::request::check_keep_alive;
use super::{model_name, options};
use crate::http::error::{ApiError, json_response};
use crate::http::generation::embedding::{self, EmbeddingInput, EmbeddingOptions, Embeddings};
use crate::http::generation::start;
use crate::http::json_body::JsonBody;
use crate::http::params::{Params, out_of_range, wrong_type};
use crate::http::served_model::ServedModel;
use crate::http::token_options::SamplingRules;

/// A request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidEmbed {
    /// The model's name as the client wrote it.
    model: String,
    /// The texts, each with its path in the body.
    texts: Vec<(String, String)>,
    options: EmbeddingOptions,
    /// Most tokens of a text. What exceeds them is cut off.
    tokens_max: usize,
}

#[derive(Debug, Serialize)]
struct EmbedAnswer {
    model: String,
    embeddings: Vec<Vec<f32>>,
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: u64,
}

#[derive(Debug, Serialize)]
struct OldAnswer {
    embedding: Vec<f32>,
}

/// Embeds one text or several.
///
/// # Errors
/// Refusals of a request that is not valid, and of a pipeline that cannot serve it.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let began = Instant::now();
    let request = ValidEmbed::read(&body, &state, "input")?;
    drop(body);
    let model = request.model.clone();
    let Embeddings { vectors, prompt_tokens, queued } = request.embed(&state, "input").await?;
    let answer = EmbedAnswer {
        model,
        embeddings: vectors,
        total_duration: ns(began.elapsed()),
        load_duration: ns(queued),
        prompt_eval_count: prompt_tokens,
    };
    Ok(json_response(StatusCode::OK, &answer))
}

/// Embeds one text.
///
/// # Errors
/// As [`create`].
pub(super) async fn create_one(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let request = ValidEmbed::read(&body, &state, "prompt")?;
    drop(body);
    let vector = request.embed(&state, "prompt").await?.vectors.pop();
    Ok(json_response(StatusCode::OK, &OldAnswer { embedding: vector.unwrap_or_default() }))
}

// === impl ValidEmbed ===

impl ValidEmbed {
    /// Reads a request whose texts are in `key`.
    fn read(body: &Map<String, Value>, state: &ServedModel, key: &'static str) -> Result<Self, ApiError> {
        let params = Params::new(body);
        let model = model_name::read(&params)?.to_owned();
        options::read(&params, &*state.text, &state.model.sampling(SamplingRules::OLLAMA))?;
        check_keep_alive(&params)?;
        let options = EmbeddingOptions::read(&params, state)?;
        let cuts = params.get("truncate").is_none() || params.flag("truncate")?;
        let tokens_max = if cuts { state.context_tokens() as usize } else { usize::MAX };
        Ok(Self { model, texts: texts(&params, key, options.inputs_max())?, options, tokens_max })
    }

    async fn embed(self, state: &ServedModel, param: &'static str) -> Result<Embeddings, ApiError> {
        let Self { texts, options, tokens_max, .. } = self;
        let inputs = start::encode(state, param, move |text| {
            let encode = |(at, input): (String, String)| {
                Ok(EmbeddingInput { tokens: text.encode_embedded(&input, tokens_max)?, at })
            };
            texts.into_iter().map(encode).collect()
        });
        embedding::embed(state, inputs.await?, options, param).await
    }
}

/// The texts in `key`: a string, or in `input` an array of strings. None if it is absent or empty.
fn texts(params: &Params<'_>, key: &'static str, inputs_max: usize) -> Result<Vec<(String, String)>, ApiError> {
    let list = match params.get(key) {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(vec![(key.to_owned(), text.clone())]),
        Some(Value::Array(list)) if key == "input" => list,
        Some(other) if key == "input" => return Err(wrong_type(key, "a string or an array of strings", other)),
        Some(other) => return Err(wrong_type(key, "a string", other)),
    };
    if list.len() > inputs_max {
        return Err(out_of_range(key, &format!("at most {inputs_max} texts"), &Value::Array(list.clone())));
    }
    let text = |(index, text): (usize, &Value)| {
        let at = format!("{key}[{index}]");
        let read = text.as_str().ok_or_else(|| wrong_type(&at, "a string", text))?.to_owned();
        Ok((at, read))
    };
    list.iter().enumerate().map(text).collect()
}
