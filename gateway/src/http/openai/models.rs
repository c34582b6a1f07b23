//! `GET /v1/models` and `GET /v1/models/{id}`.

use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use crate::http::app_state::AppState;
use crate::http::error::{ApiError, json_response};
use crate::http::generation::generation_config::GenerationConfig;
use crate::http::served_model::ServedModel;

/// The body of the list.
#[derive(Debug, Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: Vec<ModelEntry<'a>>,
}

/// The model by one of its names.
#[derive(Debug, Serialize)]
struct ModelEntry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// The name of the model that is served by this id, in vLLM's field.
    root: &'a str,
    /// Most tokens of a sequence, in vLLM's field.
    max_model_len: u32,
    /// The sampling of requests that leave it out, as far as the model's file recommends one.
    generation_config: &'a GenerationConfig,
}

/// The list of models: each that is served, and once more by each of its aliases.
pub(crate) fn list(state: &AppState) -> Response {
    let models = state.models.all();
    let entries = models.iter().flat_map(|model| {
        let names = std::iter::once(model.model.name.as_str()).chain(state.models.aliases(model));
        names.map(|name| ModelEntry::new(model, name))
    });
    let data = entries.collect();
    json_response(StatusCode::OK, &ModelList { object: "list", data })
}

/// One model. `id` is the rest of the path, in which `/` may be written `%2F`.
///
/// # Errors
/// 404 for any id but the names of served models and their aliases.
pub(crate) fn one(state: &AppState, id: &str) -> Result<Response, ApiError> {
    let id = decoded(id);
    let model = state.models.named(Some(&id))?;
    Ok(json_response(StatusCode::OK, &ModelEntry::new(&model, &id)))
}

// === impl ModelEntry ===

impl<'a> ModelEntry<'a> {
    fn new(state: &'a ServedModel, id: &'a str) -> Self {
        Self {
            id,
            object: "model",
            created: state.model.created_s,
            owned_by: "baton",
            root: &state.model.name,
            max_model_len: state.context_tokens(),
            generation_config: &state.model.generation_config,
        }
    }
}

/// The path with `%XX` escapes decoded. Text that is no such escape stays as it is.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%').then(|| std::str::from_utf8(after.get(..2)?).ok()).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_invalid_ones_are_kept() {
        assert_eq!(decoded("org%2Fname%20x"), "org/name x");
        assert_eq!(decoded("50%"), "50%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
        assert_eq!(decoded("%ff"), "\u{fffd}");
    }
}
