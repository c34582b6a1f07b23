//! `POST /api/show`: the model's file and template.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use super::models::{Details, capabilities};
use super::{model_name, timestamp};
use crate::http::app_state::AppState;
use crate::http::error::{ApiError, json_response};
use crate::http::params::{Params, parse_object};

#[derive(Debug, Serialize)]
struct ModelDetails<'a> {
    modelfile: String,
    /// Parameters that the model's file sets. GGUF files set none.
    parameters: &'static str,
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
pub(super) async fn create(state: Arc<AppState>, body: Bytes) -> Result<Response, ApiError> {
    let map = parse_object(&body)?;
    model_name::read(&Params::new(&map), &state)?;
    let description = state.text.description();
    let details = ModelDetails {
        modelfile: format!("# The model of this server\nFROM {}\n", state.model.name),
        parameters: "",
        template: description.chat_template.as_deref().unwrap_or_default(),
        details: Details::new(description),
        model_info: model_info(&state),
        capabilities: capabilities(description),
        modified_at: timestamp::of_seconds(state.model.created_s),
    };
    Ok(json_response(StatusCode::OK, &details))
}

/// The file's metadata. The length of the context is the one that is served: clients cut their prompts by it.
fn model_info(state: &AppState) -> Map<String, Value> {
    let description = state.text.description();
    let mut info = description.metadata.clone();
    info.insert("general.architecture".to_owned(), Value::from(description.architecture.as_str()));
    info.insert("general.parameter_count".to_owned(), Value::from(description.parameters));
    let length = format!("{}.context_length", description.architecture);
    info.insert(length, Value::from(state.context_tokens()));
    info
}
