//! `GET /api/version`.

use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use crate::http::app_state::AppState;
use crate::http::error::json_response;

/// The version of Ollama whose API this is. Clients compare it with the oldest one that they can use.
const API_VERSION: &str = "0.32.15";

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    /// The program that answers, and its own version.
    server: &'static str,
}

/// The version of the API, and that of this program.
pub(super) fn show(_: &AppState) -> Response {
    let server = concat!("baton ", env!("CARGO_PKG_VERSION"));
    json_response(StatusCode::OK, &Version { version: API_VERSION, server })
}
