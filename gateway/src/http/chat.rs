//! `POST /v1/chat/completions`.

use std::sync::Arc;

use bytes::Bytes;
use warp::reply::Response;

use super::answer::{Answer, Shape};
use super::door::Door;
use super::error::ApiError;
use super::fields::{Fields, parse_object};
use super::options::ValidOptions;
use super::text::Message;
use super::{messages, speech, submit};

/// A chat request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidChat {
    messages: Vec<Message>,
    options: ValidOptions,
    scored: bool,
}

/// Answers a chat.
///
/// # Errors
/// What is wrong with the request or with the pipeline.
pub(crate) async fn create(door: Arc<Door>, body: Bytes) -> Result<Response, ApiError> {
    let ValidChat { messages, options, scored } = ValidChat::read(&body, &door)?;
    drop(body);
    let prompt = submit::encode(&door, "messages", move |text| text.encode_chat(&messages)).await?;
    let tokens_max = options.tokens_max.unwrap_or(door.settings.default_max_tokens);
    let chorus = submit::start(&door, vec![prompt], &options, tokens_max, scored, "messages").await?;
    let answer = Answer::new(Shape::Chat, &door.model.name, scored);
    speech::answer(chorus, answer, &options, door.settings.ping_period).await
}

// === impl ValidChat ===

impl ValidChat {
    fn read(body: &[u8], door: &Door) -> Result<Self, ApiError> {
        let map = parse_object(body)?;
        let fields = Fields::new(&map);
        let options = ValidOptions::read(&fields, &door.model, &door.settings)?;
        Ok(Self { messages: messages::read(&fields)?, options, scored: scored(&fields)? })
    }
}

/// Only the chosen token's probability travels: a list of the likeliest does not.
fn scored(fields: &Fields<'_>) -> Result<bool, ApiError> {
    let scored = fields.flag("logprobs")?;
    let top = fields.whole("top_logprobs", 0..=20)?;
    if top.is_some() && !scored {
        let message = "Invalid value for 'top_logprobs': expected 'logprobs' to be true beside it.";
        return Err(ApiError::bad_request("invalid_value", message).about("top_logprobs"));
    }
    if top.is_some_and(|top| top > 0) {
        let message = "'top_logprobs' above 0 is not supported by this server yet.";
        return Err(ApiError::unsupported("top_logprobs", message));
    }
    Ok(scored)
}
