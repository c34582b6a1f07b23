//! `POST /v1/chat/completions`.

use std::sync::Arc;

use schema::frame::ALTERNATIVES_MAX;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use super::logprobs::ChatLogprobs;
use super::options::ValidOptions;
use super::params::Params;
use super::response::{Shape, finish_reason, respond};
use super::template_options::TemplateOptions;
use super::tools::ValidTools;
use super::{messages, template_options, tools, unsupported};
use crate::http::error::ApiError;
use crate::http::generation::chat;
use crate::http::generation::choice_decoder::{Ended, ToolCallDelta};
use crate::http::generation::dialect::Choice;
use crate::http::generation::text_model::{AnswerRequest, Conversation, ToolCall, ToolChoice};
use crate::http::generation::token_logprob::{TokenLogprob, TokenNames};
use crate::http::json_body::JsonBody;
use crate::http::served_model::ServedModel;

/// A chat request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidChat {
    request: AnswerRequest,
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
    /// Null if the answer has calls only.
    content: Option<String>,
    refusal: (),
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    reasoning: Option<Reasoning>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

/// The reasoning, under the names that DeepSeek and llama.cpp, and vLLM and Ollama, gave it.
#[derive(Debug, Clone, Serialize)]
struct Reasoning {
    reasoning_content: String,
    reasoning: String,
}

/// A call of a tool.
#[derive(Debug, Serialize)]
struct Call {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

/// The part that a chunk adds to a call. Only the first part has id, type and name.
#[derive(Debug, Serialize)]
struct CallDelta {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Debug, Serialize)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
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
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    reasoning: Option<Reasoning>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
}

/// Answers a chat.
///
/// # Errors
/// Refusals of a request that is not valid, and of a pipeline that cannot serve it.
pub(crate) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let ValidChat { request, mut options } = ValidChat::read(&body, &state)?;
    drop(body);
    let prompt = chat::prepare(&state, request, &mut options.generation, "messages").await?;
    let tokens_max = options.generation.tokens_max.unwrap_or(state.settings.default_max_tokens);
    respond::<Chat>(&state, vec![prompt], &options, tokens_max, "messages").await
}

// === impl ValidChat ===

impl ValidChat {
    fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<Self, ApiError> {
        let params = Params::new(body);
        unsupported::refuse_of_completions(&params)?;
        if params.flag("echo")? {
            return Err(ApiError::unsupported(
                "echo",
                "'echo' is not supported in chats: see 'prompt_logprobs'.".to_owned(),
            ));
        }
        let options = ValidOptions::read(&params, top_logprobs, &state.model, &state.settings, &*state.text)?;
        let messages = messages::read(&params)?;
        let ValidTools { tools, choice, parallel } = tools::read(&params)?;
        let TemplateOptions { kwargs, ending, template, reasoning_tokens_max } =
            template_options::read(&params, &state.settings)?;
        let conversation = Conversation {
            messages,
            tools: if choice == ToolChoice::None { Vec::new() } else { tools },
            template_kwargs: kwargs,
            ending,
            template,
        };
        let request =
            AnswerRequest { conversation, tool_choice: choice, parallel_tool_calls: parallel, reasoning_tokens_max };
        Ok(Self { request, options })
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
    const PROMPT_ON_TOP: bool = true;
    type Choice = ChatChoice;
    type ChunkChoice = ChatChunkChoice;
    type Logprobs = ChatLogprobs;

    fn logprobs(tokens: &[TokenLogprob], _: usize, names: TokenNames) -> ChatLogprobs {
        ChatLogprobs::new(tokens, names)
    }

    fn choice(index: usize, choice: Choice, logprobs: Option<ChatLogprobs>) -> ChatChoice {
        let Choice { text, reasoning, tool_calls, .. } = choice;
        let message = AnsweredMessage {
            role: "assistant",
            content: Some(text).filter(|text| !text.is_empty() || tool_calls.is_empty()),
            refusal: (),
            reasoning: Some(reasoning).filter(|reasoning| !reasoning.is_empty()).map(Reasoning::new),
            tool_calls: tool_calls.into_iter().map(Call::new).collect(),
        };
        ChatChoice { index, message, logprobs, finish_reason: choice.ended.map(finish_reason) }
    }

    fn opening(index: usize) -> Option<ChatChunkChoice> {
        let delta = ChatDelta { role: Some("assistant"), content: Some(String::new()), ..ChatDelta::default() };
        Some(Self::chunk(index, delta))
    }

    fn piece(index: usize, text: &str, logprobs: Option<ChatLogprobs>) -> ChatChunkChoice {
        let delta = ChatDelta { content: Some(text.to_owned()), ..ChatDelta::default() };
        ChatChunkChoice { logprobs, ..Self::chunk(index, delta) }
    }

    fn reasoning(index: usize, text: &str, logprobs: Option<ChatLogprobs>) -> Option<ChatChunkChoice> {
        let delta = ChatDelta { reasoning: Some(Reasoning::new(text.to_owned())), ..ChatDelta::default() };
        Some(ChatChunkChoice { logprobs, ..Self::chunk(index, delta) })
    }

    fn calls(index: usize, call: &ToolCallDelta) -> Vec<ChatChunkChoice> {
        let chunk = |call| Self::chunk(index, ChatDelta { tool_calls: vec![call], ..ChatDelta::default() });
        CallDelta::parts(call).into_iter().map(chunk).collect()
    }

    fn ending(index: usize, ended: Ended) -> ChatChunkChoice {
        ChatChunkChoice { finish_reason: Some(finish_reason(ended)), ..Self::chunk(index, ChatDelta::default()) }
    }
}

// === impl Reasoning ===

impl Reasoning {
    fn new(reasoning: String) -> Self {
        Self { reasoning_content: reasoning.clone(), reasoning }
    }
}

// === impl Call ===

impl Call {
    fn new(ToolCall { id, name, arguments }: ToolCall) -> Self {
        Self { id, kind: "function", function: Function { name, arguments } }
    }
}

// === impl CallDelta ===

impl CallDelta {
    /// The parts of a delta as OpenAI streams them: the first one of a call has no arguments yet.
    fn parts(call: &ToolCallDelta) -> Vec<Self> {
        let ToolCallDelta { index, id, name, arguments } = call;
        let first = id.as_ref().map(|id| Self {
            index: *index,
            id: Some(id.clone()),
            kind: Some("function"),
            function: FunctionDelta { name: name.clone(), arguments: String::new() },
        });
        let more = Some(arguments).filter(|arguments| !arguments.is_empty()).map(|arguments| Self {
            index: *index,
            id: None,
            kind: None,
            function: FunctionDelta { name: None, arguments: arguments.clone() },
        });
        first.into_iter().chain(more).collect()
    }
}

/// Number of the likeliest tokens to report beside each token, if log-probabilities are asked for.
fn top_logprobs(params: &Params<'_>) -> Result<Option<u32>, ApiError> {
    let logprobs = params.flag("logprobs")?;
    let top = params.whole("top_logprobs", 0..=i128::from(ALTERNATIVES_MAX))?;
    if top.is_some() && !logprobs {
        let message = "Invalid value for 'top_logprobs': expected 'logprobs' to be true beside it.";
        return Err(ApiError::bad_request("invalid_value", message).about("top_logprobs"));
    }
    Ok(logprobs.then(|| top.map_or(0, |top| top as u32)))
}
