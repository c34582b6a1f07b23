//! Errors of requests. An error knows its status, its words and its headers, and leaves the body to the API whose page
//! was asked: `server/middleware.rs` writes it, by `routes::error_writer`.

use std::time::Duration;

use engine::generate::{Failure, Rejection};
use http::StatusCode;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use warp::reply::{Reply, Response};

use super::limits::RETRY_AFTER_S;
use crate::json_size::TooMuchJson;

/// The response to a refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    /// The lengths of a prompt that leaves no room for an answer and of the context, if that is the error.
    pub(crate) excess: Option<Excess>,
    /// The methods that the page takes, for the `Allow` header.
    allow: Option<&'static str>,
    /// True if the connection closes after this answer, because its request was not read to the end.
    close: bool,
    /// Seconds until the client may try again, if they differ from [`RETRY_AFTER_S`].
    retry_after_s: Option<u32>,
}

/// A prompt that is too long for the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Excess {
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: u32,
    /// Most tokens of a prompt and its answer together.
    pub(crate) context_tokens: u32,
}

/// Writes an error as the JSON text of one API. The second argument is the request's id.
pub(crate) type ErrorWriter = fn(&ApiError, &str) -> String;

/// The JSON body of an error in OpenAI's API, and on pages that belong to no API.
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
        let message = message.into();
        let allow = None;
        Self { status, kind, code, param: None, message, excess: None, allow, close: false, retry_after_s: None }
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

    /// 404: the request names another model than those that are `served`, of which there is at least one.
    pub(crate) fn model_not_found(name: &str, served: &[&str]) -> Self {
        let (name, first) = (cut(name), served.first().copied().unwrap_or_default());
        let it = if served.len() > 1 { format!("`{first}`") } else { "it".to_owned() };
        let message = format!(
            "The model `{name}` does not exist: this server has {}. To serve {it} by this name, too, start it with \
             --model-alias {name}.",
            listed(served, "and")
        );
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message).about("model")
    }

    /// 404: the query names another cluster than those that are served.
    pub(crate) fn cluster_not_found(name: &str, served: &[&str]) -> Self {
        let message = format!("This server serves no cluster `{}`: expected {}.", cut(name), listed(served, "or"));
        Self::not_found("cluster_not_found", message).about("cluster")
    }

    /// 404: there is nothing with the id that the request gives.
    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some(code), message)
    }

    /// 404: there is no such page.
    pub(crate) fn no_such_path(path: &str) -> Self {
        let message = format!("No page {}: GET / lists what there is.", cut(path));
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("not_found"), message)
    }

    /// 403: the request is not allowed, whoever sends it again.
    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", Some(code), message)
    }

    /// 409: what the request was made for has changed.
    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict_error", Some(code), message)
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

    /// 401: the page needs a key, and the request has none.
    pub(crate) fn no_api_key() -> Self {
        Self::unauthorized(
            "This server needs an API key: expected the header `Authorization: Bearer KEY` or `x-api-key: KEY`, found \
             neither.",
        )
    }

    /// 401: the server does not know the request's key.
    pub(crate) fn wrong_api_key() -> Self {
        Self::unauthorized("Incorrect API key provided: it is none of the keys that this server was started with.")
    }

    fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", Some("invalid_api_key"), message)
    }

    /// 429: the key has used up its requests of a minute. There is room again after `wait`.
    pub(crate) fn too_many_requests(key: &str, per_minute: u32, wait: Duration) -> Self {
        let message = format!(
            "Rate limit reached: the API key `{key}` may send {per_minute} requests per minute. Try again in {:.1} s.",
            wait.as_secs_f64()
        );
        Self { retry_after_s: u32::try_from(whole_seconds(wait)).ok(), ..Self::over_limit(message) }
    }

    /// 429: as many requests of the key are being answered as may be.
    pub(crate) fn too_many_concurrent_requests(key: &str, concurrent: u32) -> Self {
        Self::over_limit(format!(
            "Concurrency limit reached: the API key `{key}` may have {concurrent} requests at the same time. Try again \
             when one of them has ended."
        ))
    }

    fn over_limit(message: String) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("rate_limit_exceeded"), message)
    }

    /// 413: the body is over the size limit.
    pub(crate) fn body_too_large(bytes_max: usize) -> Self {
        let message = format!("The body is larger than {bytes_max} bytes.");
        let code = Some("request_too_large");
        let error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", code, message);
        Self { close: true, ..error }
    }

    /// 413: parsed, the body would take too much memory.
    pub(crate) fn too_much_json(error: &TooMuchJson) -> Self {
        let message = format!("The body is too large: {error}.");
        let code = Some("request_too_large");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", code, message)
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
        let excess = Some(Excess { prompt_tokens, context_tokens });
        Self { excess, ..Self::bad_request("context_length_exceeded", message).about(param) }
    }

    /// 500: the fault is the server's own.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), message)
    }

    /// 503: the pipeline cannot serve now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", Some("not_serving"), message)
    }

    /// 503: every connection is busy.
    pub(crate) fn too_many_connections() -> Self {
        let message = "Too many connections: try again later.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", Some("too_many_connections"), message)
    }

    /// 400: the client speaks http, and this server https.
    pub(crate) fn https_required() -> Self {
        let message = "This server speaks https, and the request came as http: expected https:// at the beginning of \
            its address.";
        Self::bad_request("https_required", message)
    }

    /// The error of an accepted sequence that failed.
    pub(crate) fn failed(failure: &Failure) -> Self {
        let (status, kind, code) = match failure {
            Failure::Deadline { .. } => (StatusCode::GATEWAY_TIMEOUT, "timeout_error", "deadline_exceeded"),
            Failure::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", "server_stopping"),
            // The request is at fault: its grammar compiled, and cannot be followed within the limits.
            Failure::Grammar(_) => (StatusCode::BAD_REQUEST, "invalid_request_error", "grammar_failed"),
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
            Rejection::EmbedsOnly => Self::unsupported("model", sentence(&rejection.to_string())),
        }
    }

    /// The message for people.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The word for programs that names the kind of error.
    pub(crate) fn code(&self) -> Option<&'static str> {
        self.code
    }

    /// The path of the parameter that it is about.
    pub(crate) fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The JSON body of OpenAI's API, `{"error": {…}}`.
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
    /// The response without its body. It carries the error to the middleware, which knows the page that was asked.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.is_retryable() {
            headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_after_s.map_or(RETRY_AFTER_S, u64::from)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes OpenAI's error body.
pub(crate) fn write_openai(error: &ApiError, _: &str) -> String {
    serde_json::to_string(&error.body()).unwrap_or_default()
}

/// `response` with the body that `writer` writes, if it is the response of an error. `request_id` is the request's id.
pub(crate) fn with_body(mut response: Response, writer: ErrorWriter, request_id: &str) -> Response {
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let body = http::Response::new(writer(&error, request_id)).into_response().into_body();
    response.map(|_| body)
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

/// Names in a sentence, with `last` before the last one.
fn listed(names: &[&str], last: &str) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match &quoted[..] {
        [names @ .., name] if !names.is_empty() => format!("{} {last} {name}", names.join(", ")),
        _ => quoted.concat(),
    }
}

/// Seconds after which all of `wait` has passed, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn sentence(error: &str) -> String {
    let mut letters = error.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
