//! What the door says when it does not answer: OpenAI's error body and the headers that go with it.

use engine::generate::{Failure, Rejection};
use http::StatusCode;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use serde_json::{Value, json};
use warp::reply::{Reply, Response};

use super::limits::RETRY_AFTER_S;

/// A refusal or failure, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    /// Methods that would have been taken.
    allow: Option<&'static str>,
    /// Whether the connection ends with this answer, because its request was not read to the end.
    close: bool,
}

// === impl ApiError ===

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), allow: None, close: false }
    }

    /// The client's request is wrong.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some(code), message)
    }

    /// The same error, about one parameter.
    pub(crate) fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// A parameter that means something this server cannot do.
    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request("unsupported_parameter", message).about(param)
    }

    /// Another model than the one served.
    pub(crate) fn model_not_found(name: &str, served: &str) -> Self {
        let message = format!("The model `{}` does not exist: this server has `{served}`.", cut(name));
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message).about("model")
    }

    /// No such page.
    pub(crate) fn no_such_path(path: &str) -> Self {
        let message = format!("No page {}: GET / lists what there is.", cut(path));
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("not_found"), message)
    }

    /// A page asked in the wrong way.
    pub(crate) fn wrong_method(method: &http::Method, path: &str, allow: &'static str) -> Self {
        let message = format!("{} does not take {}: expected {allow}.", cut(path), cut(method.as_str()));
        let code = Some("method_not_allowed");
        let error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", code, message);
        Self { allow: Some(allow), ..error }
    }

    /// A host that is not this server's; `flag` is the value of the flag that lets it in.
    pub(crate) fn foreign_host(found: &str, flag: &str) -> Self {
        let message = format!(
            "This server is not known as {found:?}: expected localhost, an IP address, or the name of a machine of its \
             cluster. To let clients ask by this name, start it with --allow-host {flag}."
        );
        Self::new(StatusCode::FORBIDDEN, "permission_error", Some("host_not_allowed"), message)
    }

    /// A web page that may not ask for work; `flag` is the value of the flag that lets it.
    pub(crate) fn foreign_origin(found: &str, flag: &str) -> Self {
        let message = format!(
            "Web pages of the origin {found:?} may not use this server: expected a page of this machine. To let them, \
             start it with --allow-origin {flag}."
        );
        Self::new(StatusCode::FORBIDDEN, "permission_error", Some("origin_not_allowed"), message)
    }

    /// A body over the cap.
    pub(crate) fn body_too_large(bytes_max: usize) -> Self {
        let message = format!("The body is larger than {bytes_max} bytes.");
        let code = Some("request_too_large");
        let error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", code, message);
        Self { close: true, ..error }
    }

    /// A body that does not come.
    pub(crate) fn body_too_slow(seconds: f64) -> Self {
        let message = format!("The body was not complete within {seconds} s.");
        let code = Some("request_timeout");
        let error = Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", code, message);
        Self { close: true, ..error }
    }

    /// A prompt that leaves no room for an answer, in the words that clients look for.
    fn context_exceeded(context_tokens: u32, prompt_tokens: u32, param: &'static str) -> Self {
        let message = format!(
            "This model's maximum context length is {context_tokens} tokens. However, your {param} resulted in \
             {prompt_tokens} tokens. Please reduce the length of the {param}."
        );
        Self::bad_request("context_length_exceeded", message).about(param)
    }

    /// The server's own fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message)
    }

    /// The pipeline cannot serve now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", Some("not_serving"), message)
    }

    /// What an accepted sequence failed of.
    pub(crate) fn failed(failure: &Failure) -> Self {
        let (status, kind, code) = match failure {
            Failure::Deadline { .. } => (StatusCode::GATEWAY_TIMEOUT, "timeout_error", "deadline_exceeded"),
            Failure::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "server_stopping"),
            Failure::Stage { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "stage_failed"),
        };
        Self::new(status, kind, Some(code), sentence(&failure.to_string()))
    }

    /// Why a sequence was not accepted; `param` is where its prompt came from.
    pub(crate) fn rejected(rejection: &Rejection, param: &'static str) -> Self {
        match rejection {
            Rejection::NotServing { .. } => Self::unavailable(sentence(&rejection.to_string())),
            Rejection::Busy { .. } => {
                let (kind, code) = ("rate_limit_error", Some("queue_full"));
                Self::new(StatusCode::TOO_MANY_REQUESTS, kind, code, sentence(&rejection.to_string()))
            }
            Rejection::TooLong { context_tokens, prompt_tokens } => {
                Self::context_exceeded(*context_tokens, *prompt_tokens, param)
            }
        }
    }

    /// `{"error": {…}}`.
    pub(crate) fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }

    fn retries(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }
}

impl Reply for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.body());
        let headers = response.headers_mut();
        if self.retries() {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A JSON answer.
pub(crate) fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    let json = match serde_json::to_string(body) {
        Ok(json) => json,
        Err(error) => {
            return ApiError::internal(format!("The answer cannot be written as JSON: {error}.")).into_response();
        }
    };
    let mut response = http::Response::new(json).into_response();
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// At most the first characters of a client's own text.
pub(crate) fn cut(text: &str) -> String {
    let limit = super::limits::FOUND_CHARS_MAX;
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn sentence(error: &str) -> String {
    let mut letters = error.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
