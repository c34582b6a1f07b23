//! `GET /v1/models` and `GET /v1/models/{id}`.

use http::StatusCode;
use serde_json::{Value, json};
use warp::reply::Response;

use crate::http::app_state::AppState;
use crate::http::error::{ApiError, json_response};

/// The list of models: the served one only.
pub(crate) fn list(state: &AppState) -> Response {
    json_response(StatusCode::OK, &json!({"object": "list", "data": [entry(state)]}))
}

/// One model. `id` is the rest of the path, in which `/` may be written `%2F`.
///
/// # Errors
/// 404 for any id but the served model's.
pub(crate) fn one(state: &AppState, id: &str) -> Result<Response, ApiError> {
    let id = decoded(id);
    if id == state.model.name {
        Ok(json_response(StatusCode::OK, &entry(state)))
    } else {
        Err(ApiError::model_not_found(&id, &state.model.name))
    }
}

fn entry(state: &AppState) -> Value {
    json!({
        "id": state.model.name,
        "object": "model",
        "created": state.model.created_s,
        "owned_by": "baton",
        "max_model_len": state.context_tokens(),
    })
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
    fn escapes_are_read_and_what_only_looks_like_one_stays() {
        assert_eq!(decoded("org%2Fname%20x"), "org/name x");
        assert_eq!(decoded("50%"), "50%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
        assert_eq!(decoded("%ff"), "\u{fffd}");
    }
}
