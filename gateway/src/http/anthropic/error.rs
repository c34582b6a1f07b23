//! The error bodies of Anthropic's API.

use std::borrow::Cow;

use http::StatusCode;
use serde::Serialize;

use crate::http::error::{ApiError, Excess};

/// The JSON body of an error, and the data of an `error` event.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: ErrorDetail<'a>,
    /// Absent in a stream: the head of the answer has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ErrorDetail<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: Cow<'a, str>,
}

/// Writes the body of `error`, the answer to the request `request_id`.
pub(crate) fn write(error: &ApiError, request_id: &str) -> String {
    let body = ErrorBody { request_id: Some(request_id), ..ErrorBody::new(error) };
    serde_json::to_string(&body).unwrap_or_default()
}

/// Anthropic's name for errors with this status.
fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

/// The error's message. A prompt that is too long has the words by which Claude Code recognises it: it then makes the
/// conversation shorter.
fn message(error: &ApiError) -> Cow<'_, str> {
    match error.excess {
        Some(Excess { prompt_tokens, context_tokens }) => {
            let prompt_tokens_max = context_tokens.saturating_sub(1);
            format!("prompt is too long: {prompt_tokens} tokens > {prompt_tokens_max} maximum").into()
        }
        None => error.message().into(),
    }
}

// === impl ErrorBody ===

impl<'a> ErrorBody<'a> {
    /// The body of `error` without a request id.
    pub(crate) fn new(error: &'a ApiError) -> Self {
        let detail = ErrorDetail { kind: kind(error.status), message: message(error) };
        Self { kind: "error", error: detail, request_id: None }
    }
}

#[cfg(test)]
mod tests {
    use engine::generate::{Failure, Rejection};
    use serde_json::{Value, json};

    use super::*;

    fn written(error: &ApiError) -> Value {
        serde_json::from_str(&write(error, "req_1")).unwrap()
    }

    #[test]
    fn an_error_has_its_type_message_and_request() {
        let error = ApiError::bad_request("invalid_value", "It is wrong.").about("max_tokens");
        let detail = json!({"type": "invalid_request_error", "message": "It is wrong."});
        assert_eq!(written(&error), json!({"type": "error", "error": detail, "request_id": "req_1"}));
        let event = serde_json::to_value(ErrorBody::new(&error)).unwrap();
        assert_eq!(event, json!({"type": "error", "error": detail}));
    }

    #[test]
    fn each_kind_of_error_has_anthropics_name() {
        let stage = Failure::Stage { stage: "a".to_owned(), reason: "no".to_owned() };
        for (error, kind) in [
            (ApiError::model_not_found("gpt-4", &["tiny"]), "not_found_error"),
            (ApiError::no_such_path("/v1/messages/x"), "not_found_error"),
            (ApiError::wrong_method(&http::Method::GET, "/v1/messages", "POST"), "invalid_request_error"),
            (ApiError::foreign_host("evil.example", "evil.example"), "permission_error"),
            (ApiError::body_too_large(9), "request_too_large"),
            (ApiError::body_too_slow(1.0), "invalid_request_error"),
            (ApiError::unavailable("Layers are missing."), "overloaded_error"),
            (ApiError::rejected(&Rejection::Busy { waiting: 3 }, "messages"), "rate_limit_error"),
            (ApiError::failed(&Failure::Deadline { limit_s: 1 }), "timeout_error"),
            (ApiError::failed(&Failure::Stopping), "overloaded_error"),
            (ApiError::failed(&stage), "api_error"),
            (ApiError::internal("A mistake."), "api_error"),
        ] {
            assert_eq!(written(&error)["error"]["type"], kind, "{error:?}");
        }
    }

    #[test]
    fn a_prompt_beyond_the_context_has_the_words_that_claude_code_looks_for() {
        let rejection = Rejection::TooLong { context_tokens: 512, prompt_tokens: 512 };
        let error = ApiError::rejected(&rejection, "messages");
        assert_eq!(written(&error)["error"]["message"], "prompt is too long: 512 tokens > 511 maximum");
    }
}
