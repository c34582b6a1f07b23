//! `POST /api/generate`.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use super::answer::{Answer, Part, Shape};
use super::messages::refuse_images;
use super::request::Request;
use super::think::Think;
use crate::http::error::{ApiError, json_response};
use crate::http::generation::infill::{self, Gap};
use crate::http::generation::text_model::{Conversation, Message, TextModel};
use crate::http::generation::{chat, reply, start};
use crate::http::json_body::JsonBody;
use crate::http::params::Params;
use crate::http::served_model::ServedModel;
use crate::http::unsupported::{self, Neutral, is_empty};

/// Parameters for which this server has no use. They are refused unless their value has no effect.
const UNSUPPORTED: &[(&str, Neutral)] = &[("template", is_empty), ("context", is_empty)];

/// A request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidGenerate {
    request: Request,
    /// `None` if the model is only to be loaded.
    prompt: Option<Prompt>,
}

/// The source of a prompt.
#[derive(Debug, Clone, PartialEq)]
enum Prompt {
    /// The text as it is, with control tokens spelled in it.
    Raw(String),
    /// The chat template.
    Chat(Conversation),
    /// The texts before and after a gap, which the model fills in.
    Gap { prefix: String, suffix: String },
}

/// The fields of the answer.
struct Generate;

#[derive(Debug, Serialize)]
pub(super) struct GenerateFields {
    response: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    thinking: String,
}

/// Answers or completes a prompt.
///
/// # Errors
/// Refusals of a request that is not valid, and of a pipeline that cannot serve it.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let began = Instant::now();
    let ValidGenerate { mut request, prompt } = ValidGenerate::read(&body, &state)?;
    drop(body);
    let answer = Answer::<Generate>::new(request.model, began, request.options.logprobs);
    let Some(prompt) = prompt else {
        state.check_serving()?;
        return Ok(json_response(StatusCode::OK, &answer.loaded()));
    };
    start::compile_form(&state, &mut request.options).await?;
    let prompt = match prompt {
        Prompt::Chat(conversation) => {
            chat::prepare(&state, conversation.into(), &mut request.options, "prompt").await?
        }
        Prompt::Raw(text) => start::encode(&state, "prompt", move |model| model.encode_prompt(&text)).await?,
        Prompt::Gap { prefix, suffix } => {
            let encode = move |text: &dyn TextModel| infill::encode(text, Gap { prefix: &prefix, suffix: &suffix });
            start::encode(&state, "prompt", encode).await?
        }
    };
    let tokens_max = request.options.tokens_max.unwrap_or(state.settings.default_max_tokens);
    let choices = start::start(&state, vec![prompt], &request.options, tokens_max, "prompt").await?;
    reply::respond(choices, answer, request.stream, state.settings.ping_period).await
}

// === impl ValidGenerate ===

impl ValidGenerate {
    fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<Self, ApiError> {
        let params = Params::new(body);
        let request = Request::read(&params, state)?;
        refuse_images(&params)?;
        unsupported::refuse(&params, UNSUPPORTED, "is not supported: use the model's own template, or /api/chat")?;
        let prompt = Prompt::read(&params, &request)?;
        if matches!(prompt, Some(Prompt::Gap { .. })) {
            infill::check(&*state.text, "suffix")?;
        }
        Ok(Self { request, prompt })
    }
}

// === impl Prompt ===

impl Prompt {
    /// Reads `prompt`, and `system`, `suffix` and `raw`, which belong to it. `None` if there is no prompt.
    fn read(params: &Params<'_>, request: &Request) -> Result<Option<Self>, ApiError> {
        let text = |key| Ok::<_, ApiError>(params.text(key)?.unwrap_or_default());
        let (prompt, system, suffix) = (text("prompt")?, text("system")?, text("suffix")?);
        if params.flag("raw")? {
            if let Some((key, _)) = [("system", system), ("suffix", suffix)].iter().find(|(_, text)| !text.is_empty()) {
                let message = format!("'{key}' is not used with 'raw': write it into the prompt.");
                return Err(ApiError::unsupported(key, message));
            }
            return Ok((!prompt.is_empty()).then(|| Self::Raw(prompt.to_owned())));
        }
        if !suffix.is_empty() {
            if !system.is_empty() {
                let message = "'system' is not used with 'suffix': leave one of them out.";
                return Err(ApiError::unsupported("system", message));
            }
            return Ok(Some(Self::Gap { prefix: prompt.to_owned(), suffix: suffix.to_owned() }));
        }
        if prompt.is_empty() {
            return Ok(None);
        }
        let system = Some(system).filter(|system| !system.is_empty()).map(|system| Message::text("system", system));
        let messages = system.into_iter().chain([Message::text("user", prompt)]).collect();
        let template_kwargs = request.think.map(Think::template_kwargs).unwrap_or_default();
        Ok(Some(Self::Chat(Conversation { messages, template_kwargs, ..Conversation::default() })))
    }
}

// === impl Generate ===

impl Shape for Generate {
    type Fields = GenerateFields;

    fn fields(Part { text, thinking, .. }: Part) -> GenerateFields {
        GenerateFields { response: text, thinking }
    }
}
