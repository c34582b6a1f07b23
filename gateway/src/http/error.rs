//! Error responses: OpenAI's error body and its headers.

use engine::generate::{Failure, Rejection};
use http::StatusCode;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use warp::reply::{Reply, Response};

use super::limits::RETRY_AFTER_S;

/// The response to a refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    /// The methods that the page takes, for the `Allow` header.
    allow: Option<&'static str>,
    /// True if the connection closes after this answer, because its request was not read to the end.
    close: bool,
}

/// The JSON body of an error.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorDetail<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

// === impl ApiError ===

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), allow: None, close: false }
    }

    /// 400: the client's request is wrong.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", Some(code), message)
    }

    /// The same error, with the name of the parameter that it is about.
    pub(crate) fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// 400: a parameter asks for something that this server cannot do.
    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request("unsupported_parameter", message).about(param)
    }

    /// 404: the request names another model than the served one.
    pub(crate) fn model_not_found(name: &str, served: &str) -> Self {
        let message = format!("The model `{}` does not exist: this server has `{served}`.", cut(name));
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message).about("model")
    }

    /// 404: there is no such page.
    pub(crate) fn no_such_path(path: &str) -> Self {
        let message = format!("No page {}: GET / lists what there is.", cut(path));
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("not_found"), message)
    }

    /// 405: the page does not take this method.
    pub(crate) fn wrong_method(method: &http::Method, path: &str, allow: &'static str) -> Self {
        let message = format!("{} does not take {}: expected {allow}.", cut(path), cut(method.as_str()));
        let code = Some("method_not_allowed");
        let error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", code, message);
        Self { allow: Some(allow), ..error }
    }

    /// 403: the request's host is not a name of this server. `flag` is the value of `--allow-host` that allows it.
    pub(crate) fn foreign_host(found: &str, flag: &str) -> Self {
        let message = format!(
            "This server is not known as {found:?}: expected localhost, an IP address, or the name of a machine of its \
             cluster. To let clients ask by this name, start it with --allow-host {flag}."
        );
        Self::new(StatusCode::FORBIDDEN, "permission_error", Some("host_not_allowed"), message)
    }

    /// 403: the web page may not use this server. `flag` is the value of `--allow-origin` that allows it.
    pub(crate) fn foreign_origin(found: &str, flag: &str) -> Self {
        let message = format!(
            "Web pages of the origin {found:?} may not use this server: expected a page of this machine. To let them, \
             start it with --allow-origin {flag}."
        );
        Self::new(StatusCode::FORBIDDEN, "permission_error", Some("origin_not_allowed"), message)
    }

    /// 413: the body is over the size limit.
    pub(crate) fn body_too_large(bytes_max: usize) -> Self {
        let message = format!("The body is larger than {bytes_max} bytes.");
        let code = Some("request_too_large");
        let error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", code, message);
        Self { close: true, ..error }
    }

    /// 408: the body is not complete in time.
    pub(crate) fn body_too_slow(seconds: f64) -> Self {
        let message = format!("The body was not complete within {seconds} s.");
        let code = Some("request_timeout");
        let error = Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", code, message);
        Self { close: true, ..error }
    }

    /// 400: the prompt leaves no room for an answer. The message has the words that clients look for.
    fn context_exceeded(context_tokens: u32, prompt_tokens: u32, param: &'static str) -> Self {
        let message = format!(
            "This model's maximum context length is {context_tokens} tokens. However, your {param} resulted in \
             {prompt_tokens} tokens. Please reduce the length of the {param}."
        );
        Self::bad_request("context_length_exceeded", message).about(param)
    }

    /// 500: the fault is the server's own.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message)
    }

    /// 503: the pipeline cannot serve now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", Some("not_serving"), message)
    }

    /// The error of an accepted sequence that failed.
    pub(crate) fn failed(failure: &Failure) -> Self {
        let (status, kind, code) = match failure {
            Failure::Deadline { .. } => (StatusCode::GATEWAY_TIMEOUT, "timeout_error", "deadline_exceeded"),
            Failure::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "server_stopping"),
            Failure::Stage { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", "stage_failed"),
        };
        Self::new(status, kind, Some(code), sentence(&failure.to_string()))
    }

    /// The error of a sequence that the pipeline did not accept. `param` is the parameter that holds its prompt.
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

    /// The JSON body, `{"error": {…}}`.
    pub(crate) fn body(&self) -> ErrorBody<'_> {
        let Self { message, kind, param, code, .. } = self;
        ErrorBody { error: ErrorDetail { message, kind, param: param.as_deref(), code: *code } }
    }

    /// The body as a JSON value.
    #[cfg(test)]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::to_value(self.body()).unwrap()
    }

    fn is_retryable(&self) -> bool {
        matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    }
}

impl Reply for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.body());
        let headers = response.headers_mut();
        if self.is_retryable() {
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

/// A response with `body` as JSON.
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

/// The first characters of a client's text, with `…` if the rest was cut off.
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
