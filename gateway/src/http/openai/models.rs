//! `GET /v1/models` and `GET /v1/models/{id}`.

use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use crate::http::app_state::AppState;
use crate::http::error::{ApiError, json_response};

/// The body of the list.
#[derive(Debug, Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: [ModelEntry<'a>; 1],
}

/// One model.
#[derive(Debug, Serialize)]
struct ModelEntry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Most tokens of a sequence, in vLLM's field.
    max_model_len: u32,
}

/// The list of models: the served one only.
pub(crate) fn list(state: &AppState) -> Response {
    json_response(StatusCode::OK, &ModelList { object: "list", data: [ModelEntry::new(state)] })
}

/// One model. `id` is the rest of the path, in which `/` may be written `%2F`.
///
/// # Errors
/// 404 for any id but the served model's.
pub(crate) fn one(state: &AppState, id: &str) -> Result<Response, ApiError> {
    let id = decoded(id);
    if id == state.model.name {
        Ok(json_response(StatusCode::OK, &ModelEntry::new(state)))
    } else {
        Err(ApiError::model_not_found(&id, &state.model.name))
    }
}

// === impl ModelEntry ===

impl<'a> ModelEntry<'a> {
    fn new(state: &'a AppState) -> Self {
        Self {
            id: &state.model.name,
            object: "model",
            created: state.model.created_s,
            owned_by: "baton",
            max_model_len: state.context_tokens(),
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
