//! `GET /health`: 200 exactly when a request would be served.

use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use serde_json::json;
use warp::reply::{Reply, Response};

use crate::http::app_state::AppState;
use crate::http::error::{ApiError, json_response};
use crate::http::limits::RETRY_AFTER_S;

/// 200 if the pipeline serves, else 503 with the missing layers.
pub(crate) fn show(state: &AppState) -> Response {
    let status = state.pipeline.status();
    if !status.serving {
        let reason = if status.reason.is_empty() { "the pipeline is not complete" } else { &status.reason };
        let mut body = ApiError::unavailable(format!("The model cannot be served now: {reason}.")).body();
        body["status"] = json!("unavailable");
        body["missing_layers"] = json!(status.missing_layers);
        let mut response = json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        return response;
    }
    let mut body = json!({"status": "ok"});
    if !status.store_reachable {
        body["note"] = json!("the store does not answer: serving goes on with the last known placement");
    } else if let Some(note) = status.store_alarms.first().cloned().or(status.store_oddity) {
        body["note"] = json!(format!("{note}; serving goes on"));
    }
    json_response(StatusCode::OK, &body).into_response()
}
