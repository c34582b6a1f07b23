//! `POST /apply-template`: the prompt that the chat template makes of a chat, as text.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use super::conversation;
use super::tokenize_params::check_model;
use crate::http::app_state::AppState;
use crate::http::error::{ApiError, json_response};
use crate::http::generation::start;
use crate::http::generation::text_model::Conversation;
use crate::http::params::{Params, parse_object};

#[derive(Debug, Serialize)]
struct Prompt {
    prompt: String,
}

/// The prompt of the chat in the request.
///
/// # Errors
/// A 400 that names what is wrong with the chat.
pub(super) async fn create(state: Arc<AppState>, body: Bytes) -> Result<Response, ApiError> {
    let conversation = read(&body, &state)?;
    drop(body);
    let prompt = start::encode(&state, "messages", move |text| text.render_chat(&conversation)).await?;
    Ok(json_response(StatusCode::OK, &Prompt { prompt }))
}

fn read(body: &[u8], state: &AppState) -> Result<Conversation, ApiError> {
    let map = parse_object(body)?;
    let params = Params::new(&map);
    check_model(&params, state)?;
    conversation::read(&params, &state.settings)
}
