//! The parameters that `/api/chat` and `/api/generate` share.

use serde_json::Value;

use super::think::Think;
use super::{format, model_name, options};
use crate::http::error::ApiError;
use crate::http::generation::options::GenerationOptions;
use crate::http::params::{Params, wrong_type};
use crate::http::served_model::ServedModel;
use crate::http::token_options::SamplingRules;

/// A request to either endpoint, without its messages or prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    /// The model's name as the client wrote it. Answers repeat it.
    pub(super) model: String,
    /// True if the answer is streamed, one line for each piece of text.
    pub(super) stream: bool,
    pub(super) options: GenerationOptions,
    /// If, and how much, the model reasons. `None` leaves it to the chat template.
    pub(super) think: Option<Think>,
}

// === impl Request ===

impl Request {
    /// Reads and checks the parameters.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub(super) fn read(params: &Params<'_>, state: &ServedModel) -> Result<Self, ApiError> {
        let model = model_name::read(params)?.to_owned();
        let think = Think::read(params)?;
        if think.is_some_and(|think| think != Think::Off) && !state.text.description().reasons {
            return Err(ApiError::unsupported("think", format!("The model '{model}' does not support thinking.")));
        }
        check_keep_alive(params)?;
        let stream = params.get("stream").is_none() || params.flag("stream")?;
        let rules = state.model.sampling(SamplingRules::OLLAMA);
        let options = GenerationOptions { form: format::read(params)?, ..options::read(params, &*state.text, &rules)? };
        Ok(Self { model, stream, options, think })
    }
}

/// Checks `keep_alive`, which changes nothing: the model stays loaded.
///
/// # Errors
/// A 400 if it is no duration.
pub(super) fn check_keep_alive(params: &Params<'_>) -> Result<(), ApiError> {
    let is_duration = |value: &Value| value.is_number() || value.is_string();
    match params.get("keep_alive").filter(|value| !is_duration(value)) {
        Some(found) => Err(wrong_type("keep_alive", "a number of seconds or a duration such as 5m", found)),
        None => Ok(()),
    }
}
