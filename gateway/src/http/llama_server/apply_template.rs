//! `POST /apply-template`: the prompt that the chat template makes of a chat, as text.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use super::conversation;
use crate::http::error::{ApiError, json_response};
use crate::http::generation::start;
use crate::http::generation::text_model::Conversation;
use crate::http::json_body::JsonBody;
use crate::http::params::Params;
use crate::http::served_model::ServedModel;

#[derive(Debug, Serialize)]
struct Prompt {
    prompt: String,
}

/// The prompt of the chat in the request.
///
/// # Errors
/// A 400 that names what is wrong with the chat.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let conversation = read(&body, &state)?;
    drop(body);
    let prompt = start::encode(&state, "messages", move |text| text.render_chat(&conversation)).await?;
    Ok(json_response(StatusCode::OK, &Prompt { prompt }))
}

fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<Conversation, ApiError> {
    let params = Params::new(body);
    conversation::read(&params, &state.settings)
}
