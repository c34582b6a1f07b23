//! vLLM's `GET /version`, `GET /load` and `GET /ping`.

use http::StatusCode;
use serde::Serialize;
use warp::reply::{Reply, Response};

use crate::http::app_state::AppState;
use crate::http::error::json_response;
use crate::http::served_model::ServedModel;

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Load {
    server_load: usize,
}

/// The version of this program.
pub(super) fn version(_: &AppState) -> Response {
    json_response(StatusCode::OK, &Version { version: env!("CARGO_PKG_VERSION") })
}

/// The number of sequences that run or wait.
pub(super) fn load(state: &ServedModel) -> Response {
    let status = state.pipeline.status();
    json_response(StatusCode::OK, &Load { server_load: status.running + status.waiting })
}

/// 200 without a body if the pipeline serves, else 503 with the reason.
pub(super) fn ping(state: &ServedModel) -> Response {
    state.check_serving().map_or_else(Reply::into_response, |()| StatusCode::OK.into_response())
}
