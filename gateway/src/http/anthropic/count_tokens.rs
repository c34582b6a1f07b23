//! `POST /v1/messages/count_tokens`: the number of tokens that a conversation would have as a prompt.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use super::params::parse_object;
use super::prompt::ValidPrompt;
use crate::http::app_state::AppState;
use crate::http::error::{ApiError, json_response};
use crate::http::generation::start;

/// The body of the answer.
#[derive(Debug, Serialize)]
struct TokenCount {
    input_tokens: usize,
}

/// Counts the tokens. Nothing is generated, so this needs no stage.
///
/// # Errors
/// Refusals of a conversation that is not valid.
pub(crate) async fn create(state: Arc<AppState>, body: Bytes) -> Result<Response, ApiError> {
    let conversation = ValidPrompt::read(&parse_object(&body)?, &state)?.request.conversation;
    drop(body);
    let prompt = start::encode(&state, "messages", move |text| text.encode_chat(&conversation)).await?;
    Ok(json_response(StatusCode::OK, &TokenCount { input_tokens: prompt.len() }))
}
