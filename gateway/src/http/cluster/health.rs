//! `GET /health`: 200 exactly when a request would be served.

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use serde::Serialize;
use warp::reply::Response;

use crate::http::error::{ApiError, ErrorBody, json_response};
use crate::http::limits::RETRY_AFTER_S;
use crate::http::served_model::ServedModel;

/// The body while the pipeline serves.
#[derive(Debug, Serialize)]
struct Healthy {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// The body while it does not.
#[derive(Debug, Serialize)]
struct Unavailable<'a> {
    #[serde(flatten)]
    error: ErrorBody<'a>,
    status: &'static str,
    /// `[first, one past last]` of each range.
    missing_layers: &'a [[u32; 2]],
}

/// 200 if the pipeline serves, else 503 with the missing layers.
pub(crate) fn show(state: &ServedModel) -> Response {
    let status = state.pipeline.status();
    if !status.serving {
        let reason = if status.reason.is_empty() { "the pipeline is not complete" } else { &status.reason };
        let error = ApiError::unavailable(format!("The model cannot be served now: {reason}."));
        let body = Unavailable { error: error.body(), status: "unavailable", missing_layers: &status.missing_layers };
        let mut response = json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        return response;
    }
    let note = if status.store_reachable {
        let problem = status.store_alarms.first().cloned().or(status.store_problem);
        problem.map(|problem| format!("{problem}; serving goes on"))
    } else {
        Some("the store does not answer: serving goes on with the last known placement".to_owned())
    };
    json_response(StatusCode::OK, &Healthy { status: "ok", note })
}
