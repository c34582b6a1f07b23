//! `POST /detokenize`: the text of tokens. The answers of llama-server and vLLM have it under different names, so both
//! are there.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use crate::http::error::{ApiError, json_response};
use crate::http::generation::start;
use crate::http::json_body::JsonBody;
use crate::http::limits::DETOKENIZED_TOKENS_MAX;
use crate::http::params::{Params, missing, out_of_range, whole};
use crate::http::served_model::ServedModel;

#[derive(Debug, Serialize)]
struct Text {
    /// llama-server's name of it.
    content: String,
    /// vLLM's name of it.
    prompt: String,
}

/// The text of the tokens in the request. Control tokens are spelled, and bytes that are no UTF-8 become U+FFFD.
///
/// # Errors
/// A 400 that names what is wrong with the tokens.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let tokens = read(&body, &state)?;
    drop(body);
    let decoded = start::encode(&state, "tokens", move |text| {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| text.token_piece(*token)).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    });
    let content = decoded.await?;
    Ok(json_response(StatusCode::OK, &Text { prompt: content.clone(), content }))
}

fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<Vec<u32>, ApiError> {
    let params = Params::new(body);
    let list = params.list("tokens")?.ok_or_else(|| missing("tokens", "an array of token ids"))?;
    if list.len() > DETOKENIZED_TOKENS_MAX {
        let found = Value::from(list.len());
        return Err(out_of_range("tokens", &format!("at most {DETOKENIZED_TOKENS_MAX} token ids"), &found));
    }
    let range = || 0..=i128::from(state.text.vocab_size()) - 1;
    let ids = list.iter().enumerate().map(|(index, id)| Ok(whole(&format!("tokens[{index}]"), id, range())? as u32));
    ids.collect()
}
