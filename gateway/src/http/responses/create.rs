//! `POST /v1/responses`.

use std::sync::Arc;
use std::time::Instant;

use warp::reply::Response;

use super::answer::Answer;
use super::context;
use super::conversation;
use super::ids::Ids;
use super::output::Output;
use super::request::ValidRequest;
use super::store::ResponseStore;
use super::truncation;
use crate::http::error::ApiError;
use crate::http::generation::text_model::{AnswerRequest, Conversation, PromptEnding, TextModel, ToolChoice};
use crate::http::generation::{chat, reply, start};
use crate::http::json_body::JsonBody;
use crate::http::limits::TRUNCATION_ANSWER_SHARE;
use crate::http::served_model::ServedModel;

/// The parameter that errors of the prompt are about.
const PARAM: &str = "input";

/// Answers a conversation.
///
/// # Errors
/// Refusals of a request that is not valid or goes on from an unknown response, and of a pipeline that cannot serve it.
pub(super) async fn create(
    state: Arc<ServedModel>,
    store: Arc<ResponseStore>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let mut ids = Ids::random();
    let id = ids.next("resp");
    let request = ValidRequest::read(&body, &state.model, &state.settings, &*state.text, &mut ids)?;
    drop(body);
    let ValidRequest { input, tools, template_kwargs, mut generation, truncates, stream, echo } = request;
    let input = context::resolve(echo.previous_response_id.as_deref(), input, &store, Instant::now())?;
    let parallel_tool_calls = echo.parallel_tool_calls && !tools.names_function();
    let conversation = Conversation {
        messages: conversation::messages(echo.instructions.as_deref(), &input)?,
        tools: if tools.choice == ToolChoice::None { Vec::new() } else { tools.tools },
        template_kwargs,
        ending: PromptEnding::Generation,
        template: None,
    };
    let request =
        AnswerRequest { conversation, tool_choice: tools.choice, parallel_tool_calls, reasoning_tokens_max: None };
    let tokens_max = generation.tokens_max.unwrap_or(state.settings.default_max_tokens);
    let prompt = if truncates {
        let context = state.context_tokens();
        let room = tokens_max.min(context / TRUNCATION_ANSWER_SHARE);
        let prompt_max = context.saturating_sub(room.max(1)) as usize;
        let encode = move |text: &dyn TextModel, conversation: &Conversation| {
            truncation::encode_fitting(text, conversation, prompt_max)
        };
        chat::prepare_with(&state, request, &mut generation, PARAM, encode).await?
    } else {
        chat::prepare(&state, request, &mut generation, PARAM).await?
    };
    let choices = start::start(&state, vec![prompt], &generation, tokens_max, PARAM).await?;
    let output = Output::new(ids, tools.namespaced, generation.logprobs);
    let answer = Answer::new(id, &state.model.name, echo, input, store, output);
    reply::respond(choices, answer, stream, state.settings.ping_period).await
}
