//! Checks host, origin and API key before every page, and sets the headers of every answer: request id, CORS, and
//! `Connection: close` if a body stays unread. It also turns a panic of this server's code into a 500, and writes the
//! body of every error in the form of the API whose page was asked.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::Service;
use rand::Rng;
use tracing::field::Empty;
use tracing::{Instrument, error, info, info_span};
use warp::reply::{Reply, Response};

use super::connection::ConnectionGuard;
use super::host::{self, KnownHosts};
use super::origin;
use super::origin::OriginVerdict;
use super::request_body::{self, RequestBody, RestAction};
use crate::http::app_state::AppState;
use crate::http::auth::{Caller, KeyName, Permit};
use crate::http::error::{ApiError, with_body};
use crate::http::limits::REQUEST_ID_BYTES_MAX;
use crate::http::routes;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The name under which clients of Anthropic's API look for the request's id.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Headers that a web page may send. Authorization must be named, because `*` does not cover it.
const ALLOWED_HEADERS: &str = "authorization, content-type, x-api-key, x-request-id";
/// Seconds for which a browser keeps the answer to a preflight request.
const PREFLIGHT_MAX_AGE_S: &str = "86400";

/// Answers `request` through `inner`. `inner` gets HEAD as GET, no OPTIONS, and only requests that pass the checks of
/// host, origin and API key. The permit, if there is one, is to be held until the response has ended.
pub(crate) async fn answer<S>(
    inner: &S,
    state: &AppState,
    guard: &Arc<ConnectionGuard>,
    request: Request<Incoming>,
) -> (Response, Option<Permit>)
where
    S: Service<Request<RequestBody>, Response = Response, Error = Infallible>,
{
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let (body, unread) = request_body::split(&head.headers, body, guard);
    let id = request_id(&head.headers);
    let verdict = origin::evaluate(&head, &state.settings.allowed_origins);
    let caller = state.access.caller(&head);
    let key = caller.key().map(KeyName::as_str);
    let (method, path) = (head.method.clone(), head.uri.path().to_owned());
    // The span of each sequence is a child of this one. It lasts until the sequence's last token.
    let route = routes::route(&path);
    let name = route.map_or_else(|| method.to_string(), |route| format!("{method} {route}"));
    let span = info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        http.response.status_code = Empty,
        url.path = path,
        id = ?id,
        key,
    );
    let status_span = span.clone();
    // The future's parts are dropped once it has ended, and with them the reader of the body.
    let answering = check_and_call(inner, state, &caller, &verdict, head, body).instrument(span);
    let (response, permit) = AssertUnwindSafe(answering).catch_unwind().await.unwrap_or_else(|_| {
        error!(?id, %method, path, key, "a request handler panicked");
        (ApiError::internal("The server made a mistake with this request.").into_response(), None)
    });
    let mut response = with_body(response, routes::error_writer(&path), id.to_str().unwrap_or_default());
    status_span.record("http.response.status_code", i64::from(response.status().as_u16()));
    let (status, ms) = (response.status(), began.elapsed().as_millis() as u64);
    info!(?id, %method, path, key, status = status.as_u16(), ms, "answered");
    state.access.answered(&caller, status);
    let headers = response.headers_mut();
    let closes = headers.contains_key(header::CONNECTION);
    if unread.finish(closes) == RestAction::Close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    headers.insert(ANTHROPIC_REQUEST_ID, id.clone());
    headers.insert(REQUEST_ID, id);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let OriginVerdict::Allowed(origin) = verdict {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id, retry-after"));
    }
    (response, permit)
}

async fn check_and_call<S>(
    inner: &S,
    state: &AppState,
    caller: &Caller,
    verdict: &OriginVerdict,
    mut head: Parts,
    body: RequestBody,
) -> (Response, Option<Permit>)
where
    S: Service<Request<RequestBody>, Response = Response, Error = Infallible>,
{
    // A page of a foreign origin or host is refused first, so that it uses up nothing of a key's limits.
    let admitted = check(&head, state, verdict).and_then(|()| state.access.admit(caller, Instant::now()));
    let permit = match admitted {
        Ok(permit) => permit,
        Err(refusal) => return (refusal.into_response(), None),
    };
    if head.method == Method::OPTIONS {
        return (preflight(&head, verdict), permit);
    }
    if head.method == Method::HEAD {
        // hyper knows that the request was HEAD, and sends no body.
        head.method = Method::GET;
    }
    match inner.call(Request::from_parts(head, body)).await {
        Ok(response) => (response, permit),
        Err(never) => match never {},
    }
}

/// Refuses a foreign host, and a page of a foreign origin that asks for work.
fn check(head: &Parts, state: &AppState, verdict: &OriginVerdict) -> Result<(), ApiError> {
    let settings = &state.settings;
    let views = || state.models.all().iter().map(|model| model.pipeline.view()).collect();
    let known = KnownHosts { own: &settings.own_hosts, allowed: &settings.allowed_hosts, views: &views };
    host::check(head, &known)?;
    origin::check(head, verdict)
}

/// Answers OPTIONS with the page's methods in `Allow`. If the origin is allowed, the answer also grants a browser's
/// CORS preflight request.
fn preflight(request: &Parts, verdict: &OriginVerdict) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let methods = routes::methods(request.uri.path()).unwrap_or("GET, HEAD, POST");
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    if !matches!(verdict, OriginVerdict::Allowed(_)) {
        return response;
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, DELETE, OPTIONS"));
    let wanted = request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|wanted| wanted.to_str().ok());
    let allowed_headers = wanted.and_then(|wanted| HeaderValue::try_from(format!("{ALLOWED_HEADERS}, {wanted}")).ok());
    let allowed_headers = allowed_headers.unwrap_or(HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_MAX_AGE_S));
    response
}

/// The client's own request id if it has only allowed characters and is not too long, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_valid = |id: &&HeaderValue| {
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(legal)
    };
    let own = headers.get(REQUEST_ID).filter(is_valid).cloned();
    own.unwrap_or_else(|| {
        let id = format!("req_{:032x}", rand::rng().random::<u128>());
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("req_0"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_request_id_is_echoed_and_another_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("abc-1"));
        assert_eq!(request_id(&headers), "abc-1");
        for invalid in ["", "a b", &"x".repeat(129)] {
            headers.insert(REQUEST_ID, HeaderValue::try_from(invalid).unwrap());
            assert!(request_id(&headers).to_str().unwrap().starts_with("req_"), "{invalid:?} was echoed");
        }
    }
}
