//! The pages of one kept response: to read it, to delete it, to list its input items, and to cancel it.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use warp::reply::{Reply, Response};

use super::context::kept;
use super::list::ListQuery;
use super::store::ResponseStore;
use super::stored::StoredResponse;
use crate::http::error::{ApiError, cut, json_response};

/// The answer to a deletion.
#[derive(Debug, Serialize)]
struct Deleted<'a> {
    id: &'a str,
    object: &'static str,
    deleted: bool,
}

/// `GET /v1/responses/{id}`.
///
/// # Errors
/// 404 for a response that is not kept, and 400 for one that is to be streamed again.
pub(super) fn read(store: &ResponseStore, id: &str, query: &[(String, String)]) -> Result<Response, ApiError> {
    let response = find(store, id)?;
    if query.iter().any(|(key, value)| key == "stream" && value == "true") {
        let message =
            "'stream' is not supported here: only a response that runs in the background can be streamed again.";
        return Err(ApiError::unsupported("stream", message));
    }
    let mut answer = http::Response::new(response.body.clone()).into_response();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

/// `DELETE /v1/responses/{id}`. Responses that went on from it keep their conversation.
///
/// # Errors
/// 404 for a response that is not kept.
pub(super) fn delete(store: &ResponseStore, id: &str) -> Result<Response, ApiError> {
    if !store.remove(id, Instant::now()) {
        return Err(not_found(store, id));
    }
    Ok(json_response(StatusCode::OK, &Deleted { id, object: "response", deleted: true }))
}

/// `GET /v1/responses/{id}/input_items`.
///
/// # Errors
/// 404 for a response that is not kept, and 400 for a query that cannot be answered.
pub(super) fn input_items(store: &ResponseStore, id: &str, query: &[(String, String)]) -> Result<Response, ApiError> {
    let response = find(store, id)?;
    Ok(json_response(StatusCode::OK, &ListQuery::read(query)?.page(&response.input)?))
}

/// `POST /v1/responses/{id}/cancel`: always refused, because a kept response is complete. A client cancels a running
/// one by closing its connection.
pub(super) fn cancel(store: &ResponseStore, id: &str) -> ApiError {
    match find(store, id) {
        Ok(_) => {
            let message = "Cannot cancel a synchronous response. To cancel one that runs, close its connection.";
            ApiError::bad_request("invalid_request", message)
        }
        Err(error) => error,
    }
}

fn find(store: &ResponseStore, id: &str) -> Result<Arc<StoredResponse>, ApiError> {
    store.get(id, Instant::now()).ok_or_else(|| not_found(store, id))
}

fn not_found(store: &ResponseStore, id: &str) -> ApiError {
    let message = format!("Response with id '{}' not found. {}", cut(id), kept(store));
    ApiError::not_found("not_found", message)
}
