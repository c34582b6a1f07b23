//! `POST /api/chat`.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use super::answer::{Answer, Part, Shape};
use super::request::Request;
use super::think::Think;
use super::tool_calls::ToolCallBody;
use super::{messages, tools};
use crate::http::error::{ApiError, json_response};
use crate::http::generation::text_model::{Conversation, Message, PromptEnding};
use crate::http::generation::{chat, reply, start};
use crate::http::json_body::JsonBody;
use crate::http::params::Params;
use crate::http::served_model::ServedModel;

/// A chat that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidChat {
    request: Request,
    /// Without a message if the model is only to be loaded.
    conversation: Conversation,
}

/// The fields of a chat's answer.
struct Chat;

#[derive(Debug, Serialize)]
pub(super) struct ChatFields {
    message: MessageBody,
}

#[derive(Debug, Serialize)]
struct MessageBody {
    role: &'static str,
    content: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    thinking: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCallBody>,
}

/// Answers a chat.
///
/// # Errors
/// Refusals of a request that is not valid, and of a pipeline that cannot serve it.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let began = Instant::now();
    let ValidChat { mut request, conversation } = ValidChat::read(&body, &state)?;
    drop(body);
    let answer = Answer::<Chat>::new(request.model, began, request.options.logprobs);
    if conversation.messages.is_empty() {
        state.check_serving()?;
        return Ok(json_response(StatusCode::OK, &answer.loaded()));
    }
    let prompt = chat::prepare(&state, conversation.into(), &mut request.options, "messages").await?;
    let tokens_max = request.options.tokens_max.unwrap_or(state.settings.default_max_tokens);
    let choices = start::start(&state, vec![prompt], &request.options, tokens_max, "messages").await?;
    reply::respond(choices, answer, request.stream, state.settings.ping_period).await
}

// === impl ValidChat ===

impl ValidChat {
    fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<Self, ApiError> {
        let params = Params::new(body);
        let request = Request::read(&params, state)?;
        let (messages, tools) = (messages::read(&params)?, tools::read(&params)?);
        if !tools.is_empty() && !state.text.description().takes_tools {
            let message = format!("The model '{}' does not support tools.", request.model);
            return Err(ApiError::unsupported("tools", message));
        }
        let ending = ending(&messages);
        let template_kwargs = request.think.map(Think::template_kwargs).unwrap_or_default();
        Ok(Self { request, conversation: Conversation { messages, tools, template_kwargs, ending, template: None } })
    }
}

/// The prompt's ending. The model continues a last message of the assistant, as in Ollama.
fn ending(messages: &[Message]) -> PromptEnding {
    match messages.last() {
        Some(last) if last.role == "assistant" && last.tool_calls.is_empty() => PromptEnding::Continued,
        _ => PromptEnding::Generation,
    }
}

// === impl Chat ===

impl Shape for Chat {
    type Fields = ChatFields;

    fn fields(Part { text, thinking, tool_calls }: Part) -> ChatFields {
        ChatFields { message: MessageBody { role: "assistant", content: text, thinking, tool_calls } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_message_of_the_assistant_is_continued() {
        let messages = [Message::text("user", "hi"), Message::text("assistant", "Hel")];
        assert_eq!(ending(&messages), PromptEnding::Continued);
        assert_eq!(ending(&messages[..1]), PromptEnding::Generation);
    }
}
