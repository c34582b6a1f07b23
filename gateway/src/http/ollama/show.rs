//! `POST /api/show`: the model's file and template.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use super::models::{Details, capabilities};
use super::{model_name, timestamp};
use crate::http::error::{ApiError, json_response};
use crate::http::generation::generation_config::GenerationConfig;
use crate::http::json_body::JsonBody;
use crate::http::params::Params;
use crate::http::served_model::ServedModel;

#[derive(Debug, Serialize)]
struct ModelDetails<'a> {
    modelfile: String,
    /// The sampling that the model's file recommends, a line for each value.
    parameters: String,
    /// The chat template, in Jinja.
    template: &'a str,
    details: Details<'a>,
    model_info: Map<String, Value>,
    capabilities: Vec<&'static str>,
    modified_at: String,
}

/// The model's details.
///
/// # Errors
/// A 400 or 404 if the request does not name the served model.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    model_name::read(&Params::new(&body))?;
    let description = state.text.description();
    let details = ModelDetails {
        modelfile: format!("# The model of this server\nFROM {}\n", state.model.name),
        parameters: parameters(&state.model.generation_config),
        template: description.chat_template.as_deref().unwrap_or_default(),
        details: Details::new(description),
        model_info: model_info(&state),
        capabilities: capabilities(description),
        modified_at: timestamp::of_seconds(state.model.created_s),
    };
    Ok(json_response(StatusCode::OK, &details))
}

/// The values under Ollama's names, as `ollama show --parameters` prints them.
fn parameters(config: &GenerationConfig) -> String {
    let lines = [
        ("temperature", config.temperature.map(|value| value.to_string())),
        ("top_k", config.top_k.map(|value| value.to_string())),
        ("top_p", config.top_p.map(|value| value.to_string())),
        ("min_p", config.min_p.map(|value| value.to_string())),
        ("repeat_penalty", config.repetition_penalty.map(|value| value.to_string())),
        ("repeat_last_n", config.repeat_last_n.map(|value| value.to_string())),
    ];
    let lines = lines.into_iter().filter_map(|(name, value)| Some(format!("{name:<30} {}", value?)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The file's metadata. The length of the context is the one that is served: clients cut their prompts by it.
fn model_info(state: &ServedModel) -> Map<String, Value> {
    let description = state.text.description();
    let mut info = description.metadata.clone();
    info.insert("general.architecture".to_owned(), Value::from(description.architecture.as_str()));
    info.insert("general.parameter_count".to_owned(), Value::from(description.parameters));
    let length = format!("{}.context_length", description.architecture);
    info.insert(length, Value::from(state.context_tokens()));
    info
}
