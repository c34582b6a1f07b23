//! `POST /v1/messages/count_tokens`: the number of tokens that a conversation would have as a prompt.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use super::prompt::ValidPrompt;
use crate::http::error::{ApiError, json_response};
use crate::http::generation::start;
use crate::http::json_body::JsonBody;
use crate::http::served_model::ServedModel;

/// The body of the answer.
#[derive(Debug, Serialize)]
struct TokenCount {
    input_tokens: usize,
}

/// Counts the tokens. Nothing is generated, so this needs no stage.
///
/// # Errors
/// Refusals of a conversation that is not valid.
pub(crate) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let conversation = ValidPrompt::read(&body)?.request.conversation;
    drop(body);
    let prompt = start::encode(&state, "messages", move |text| text.encode_chat(&conversation)).await?;
    Ok(json_response(StatusCode::OK, &TokenCount { input_tokens: prompt.len() }))
}
