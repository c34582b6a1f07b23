//! `GET /distributed/gpu-info`: the device of each live stage.

use http::StatusCode;
use serde_json::{Value, json};
use warp::reply::Response;

use crate::http::app_state::AppState;
use crate::http::error::json_response;

/// The devices of all live stages, as the stages detected them.
pub(crate) fn show(state: &AppState) -> Response {
    let view = state.pipeline.view();
    let devices: Vec<Value> = view
        .stages
        .iter()
        .map(|(name, record)| {
            let stage = &record.value;
            json!({
                "stage": name,
                "host": stage.host,
                "device": stage.device,
                "chip": stage.chip,
                "threads": stage.threads,
                "speed": stage.speed,
                "memory_total_bytes": stage.memory_total_bytes,
                "memory_budget_bytes": stage.memory_budget_bytes,
                "memory_used_bytes": stage.load.memory.pss_bytes.max(stage.load.memory.rss_bytes),
                "memory": stage.load.memory,
            })
        })
        .collect();
    json_response(StatusCode::OK, &json!({"devices": devices}))
}
