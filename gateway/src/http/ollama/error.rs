//! Ollama's error body.

use serde::Serialize;

use crate::http::error::ApiError;

/// The body of an error, and the line of an error in a running stream.
#[derive(Debug, Serialize)]
pub(super) struct ErrorBody<'a> {
    error: &'a str,
}

/// Writes `error` as Ollama does.
pub(in crate::http) fn write_error(error: &ApiError, _: &str) -> String {
    serde_json::to_string(&ErrorBody::new(error)).unwrap_or_default()
}

// === impl ErrorBody ===

impl<'a> ErrorBody<'a> {
    pub(super) fn new(error: &'a ApiError) -> Self {
        Self { error: error.message() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_its_message_alone() {
        let error = ApiError::bad_request("invalid_value", "It is \"wrong\".").about("model");
        assert_eq!(write_error(&error, "req_1"), r#"{"error":"It is \"wrong\"."}"#);
    }
}
