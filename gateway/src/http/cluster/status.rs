//! `GET /distributed/status`: the layers, the state and the costs of each stage. The stages measure these figures
//! themselves and write them to the store. The engine's report derives the states from them.

use engine::report::{ClusterReport, StageReport};
use engine::view::ClusterView;
use http::StatusCode;
use schema::record::{GatewayRecord, ModelRecord, Shard};
use serde_json::{Value, json};
use warp::reply::Response;

use crate::http::app_state::AppState;
use crate::http::error::json_response;

/// The cluster as the store shows it, and the pipeline as this gateway runs it.
pub(crate) fn show(state: &AppState) -> Response {
    let (status, view) = (state.pipeline.status(), state.pipeline.view());
    let report = ClusterReport::new(&view);
    let stages: Vec<_> = report.stages.iter().map(stage_json).collect();
    let gateways: Vec<_> = report.gateways.iter().map(|(slot, gateway)| gateway_json(*slot, gateway)).collect();
    let complaints: Vec<_> =
        view.complaints.iter().map(|complaint| json!({"key": complaint.key, "reason": complaint.reason})).collect();
    let body = json!({
        "serving": status.serving,
        "reason": (!status.serving).then_some(&status.reason),
        "missing_layers": status.missing_layers,
        "generation": view.placed(),
        "model": view.model.as_ref().map(|model| model_json(&model.value)),
        "placement": placement_json(&view),
        "stages": stages,
        "pins": report.pins,
        "gateways": gateways,
        "store": {"reachable": status.store_reachable, "revision": view.revision, "alarms": status.store_alarms},
        "running": status.running,
        "waiting": status.waiting,
        "tokens_per_second": status.tokens_per_second,
        "complaints": complaints,
    });
    json_response(StatusCode::OK, &body)
}

fn shards(view: &ClusterView) -> impl Iterator<Item = (u32, &Shard)> {
    let shards = view.placement.iter().flat_map(|placement| placement.value.shards());
    (0u32..).zip(shards)
}

fn model_json(model: &ModelRecord) -> Value {
    json!({
        "name": model.name,
        "architecture": model.architecture,
        "fingerprint": model.fingerprint,
        "layers": model.layers,
        "context_tokens": model.context_tokens,
        "kv_tokens": model.kv_tokens,
        "kv_type": model.kv_type,
        "stages_min": model.stages_min,
    })
}

fn placement_json(view: &ClusterView) -> Value {
    let Some(placement) = &view.placement else { return Value::Null };
    let shards: Vec<_> =
        shards(view).map(|(slot, shard)| json!({"slot": slot, "layers": shard.layers, "stage": shard.stage})).collect();
    json!({"generation": placement.value.generation(), "shards": shards})
}

fn gateway_json(slot: u32, gateway: &GatewayRecord) -> Value {
    json!({"slot": slot, "trouble": gateway.trouble, "url": gateway.url, "host": gateway.host, "pid": gateway.pid, "version": gateway.version,
        "share": gateway.share})
}

fn stage_json(stage: &StageReport<'_>) -> Value {
    let StageReport { record, claim, .. } = stage;
    let load = record.map(|record| &record.load);
    json!({
        "name": stage.name,
        "host": record.map(|record| &record.host),
        "pid": record.map(|record| record.pid),
        "version": record.map(|record| &record.version),
        "endpoint": record.map(|record| &record.endpoint),
        "slot": stage.slot,
        "layers": stage.layers,
        "pinned": stage.pin,
        "state": stage.state.word(),
        "reason": stage.reason,
        "memory": {
            "budget_bytes": record.map(|record| record.memory_budget_bytes),
            "bound_bytes": claim.map(|claim| claim.memory_bound_bytes),
            "weights_bytes": claim.map(|claim| claim.weights_bytes),
            "used": load.map(|load| load.memory),
        },
        "kv": claim.map(|claim| json!({"blocks": claim.kv_blocks, "block_tokens": claim.kv_block_tokens})),
        "speed": record.map(|record| &record.speed),
        "link_us": record.map(|record| record.link_us),
        "tokens_total": load.map(|load| load.tokens_total),
        "tokens_per_second": load.map(|load| load.tokens_per_second),
        "busy": load.map(|load| load.busy),
        "frames_refused": load.map(|load| load.frames_refused),
    })
}
