//! `POST /v1/messages`.

use std::sync::Arc;

use serde_json::{Map, Value};
use warp::reply::Response;

use super::answer::Answer;
use super::options::ValidOptions;
use super::output_format;
use super::params::Params;
use super::prompt::ValidPrompt;
use crate::http::error::ApiError;
use crate::http::generation::{chat, reply, start};
use crate::http::json_body::JsonBody;
use crate::http::served_model::ServedModel;
use crate::http::token_options::SamplingRules;

/// A request that can be served.
#[derive(Debug, PartialEq)]
struct ValidMessages {
    prompt: ValidPrompt,
    options: ValidOptions,
}

/// Answers a conversation.
///
/// # Errors
/// Refusals of a request that is not valid, and of a pipeline that cannot serve it.
pub(crate) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let ValidMessages { prompt, mut options } = ValidMessages::read(&body, &state)?;
    drop(body);
    let ValidPrompt { request, shows_thinking } = prompt;
    let prompt = chat::prepare(&state, request, &mut options.generation, "messages").await?;
    let choices = start::start(&state, vec![prompt], &options.generation, options.tokens_max, "messages").await?;
    let answer = Answer::new(&state.model.name, shows_thinking);
    reply::respond(choices, answer, options.stream, state.settings.ping_period).await
}

// === impl ValidMessages ===

impl ValidMessages {
    fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<Self, ApiError> {
        let prompt = ValidPrompt::read(body)?;
        let rules = state.model.sampling(SamplingRules::ANTHROPIC);
        let params = Params::new(body);
        let mut options = ValidOptions::read(&params, &*state.text, &rules)?;
        options.generation.form = output_format::read(&params)?;
        Ok(Self { prompt, options })
    }
}
