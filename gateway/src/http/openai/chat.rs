//! `POST /v1/chat/completions`.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use warp::reply::Response;

use super::logprobs::ChatLogprobs;
use super::messages;
use super::options::ValidOptions;
use super::params::{Params, parse_object};
use super::response::{Shape, finish_reason, respond};
use crate::http::app_state::AppState;
use crate::http::error::ApiError;
use crate::http::generation::choice_decoder::Ended;
use crate::http::generation::start;
use crate::http::generation::text_model::Message;
use crate::http::generation::token_logprob::TokenLogprob;

/// A chat request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidChat {
    messages: Vec<Message>,
    options: ValidOptions,
}

/// The response bodies of a chat.
struct Chat;

/// A choice of a whole answer.
#[derive(Debug, Serialize)]
pub(crate) struct ChatChoice {
    index: usize,
    message: AnsweredMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct AnsweredMessage {
    role: &'static str,
    content: String,
    refusal: (),
}

/// A choice of a chunk.
#[derive(Debug, Serialize)]
pub(crate) struct ChatChunkChoice {
    index: usize,
    delta: ChatDelta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

/// The part that a chunk adds to a message. Absent fields add nothing.
#[derive(Debug, Default, Serialize)]
struct ChatDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Answers a chat.
///
/// # Errors
/// Refusals of a request that is not valid, and of a pipeline that cannot serve it.
pub(crate) async fn create(state: Arc<AppState>, body: Bytes) -> Result<Response, ApiError> {
    let ValidChat { messages, options } = ValidChat::read(&body, &state)?;
    drop(body);
    let prompt = start::encode(&state, "messages", move |text| text.encode_chat(&messages)).await?;
    let tokens_max = options.generation.tokens_max.unwrap_or(state.settings.default_max_tokens);
    respond::<Chat>(&state, vec![prompt], &options, tokens_max, "messages").await
}

// === impl ValidChat ===

impl ValidChat {
    fn read(body: &[u8], state: &AppState) -> Result<Self, ApiError> {
        let map = parse_object(body)?;
        let params = Params::new(&map);
        let options = ValidOptions::read(&params, logprobs, &state.model, &state.settings)?;
        Ok(Self { messages: messages::read(&params)?, options })
    }
}

// === impl Chat ===

impl Chat {
    fn chunk(index: usize, delta: ChatDelta) -> ChatChunkChoice {
        ChatChunkChoice { index, delta, logprobs: None, finish_reason: None }
    }
}

impl Shape for Chat {
    const ID_PREFIX: &'static str = "chatcmpl";
    const OBJECT: &'static str = "chat.completion";
    const CHUNK_OBJECT: &'static str = "chat.completion.chunk";
    type Choice = ChatChoice;
    type ChunkChoice = ChatChunkChoice;
    type Logprobs = ChatLogprobs;

    fn logprobs(tokens: &[TokenLogprob], _: usize) -> ChatLogprobs {
        ChatLogprobs::new(tokens)
    }

    fn choice(index: usize, content: String, logprobs: Option<ChatLogprobs>, ended: Option<Ended>) -> ChatChoice {
        let message = AnsweredMessage { role: "assistant", content, refusal: () };
        ChatChoice { index, message, logprobs, finish_reason: ended.map(finish_reason) }
    }

    fn opening(index: usize) -> Option<ChatChunkChoice> {
        Some(Self::chunk(index, ChatDelta { role: Some("assistant"), content: Some(String::new()) }))
    }

    fn piece(index: usize, text: &str, logprobs: Option<ChatLogprobs>) -> ChatChunkChoice {
        let delta = ChatDelta { content: Some(text.to_owned()), ..ChatDelta::default() };
        ChatChunkChoice { logprobs, ..Self::chunk(index, delta) }
    }

    fn ending(index: usize, ended: Ended) -> ChatChunkChoice {
        ChatChunkChoice { finish_reason: Some(finish_reason(ended)), ..Self::chunk(index, ChatDelta::default()) }
    }
}

/// True if the chat asks for log-probabilities. Frames carry the chosen token's probability only, so `top_logprobs`
/// must be 0.
fn logprobs(params: &Params<'_>) -> Result<bool, ApiError> {
    let logprobs = params.flag("logprobs")?;
    let top = params.whole("top_logprobs", 0..=20)?;
    if top.is_some() && !logprobs {
        let message = "Invalid value for 'top_logprobs': expected 'logprobs' to be true beside it.";
        return Err(ApiError::bad_request("invalid_value", message).about("top_logprobs"));
    }
    if top.is_some_and(|top| top > 0) {
        let message = "'top_logprobs' above 0 is not supported by this server yet.";
        return Err(ApiError::unsupported("top_logprobs", message));
    }
    Ok(logprobs)
}
