//! `GET /distributed/status`: who holds what, in which state, at what cost. Everything here is what the stages
//! themselves measured and wrote to the store.

use std::collections::BTreeSet;

use engine::view::{ClusterView, Versioned};
use http::StatusCode;
use schema::StageName;
use schema::record::{ClaimRecord, ClaimState, ModelRecord, Shard, StageRecord};
use serde_json::{Value, json};
use warp::reply::Response;

use super::door::Door;
use super::error::json_response;

/// The cluster as the store shows it, and the pipeline as this gateway runs it.
pub(crate) fn show(door: &Door) -> Response {
    let (status, view) = (door.pipeline.status(), door.pipeline.view());
    let names: BTreeSet<&StageName> = view.stages.keys().chain(shards(&view).map(|(_, shard)| &shard.stage)).collect();
    let stages: Vec<_> = names.into_iter().map(|name| stage_json(&view, name)).collect();
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
        "pins": view.pin_reports(),
        "gateways": gateways_json(&view),
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

fn gateways_json(view: &ClusterView) -> Vec<Value> {
    let gateways = view.gateways.iter().map(|(slot, Versioned { value, .. })| {
        json!({"slot": slot, "url": value.url, "host": value.host, "pid": value.pid, "version": value.version,
            "share": value.share})
    });
    gateways.collect()
}

fn stage_json(view: &ClusterView, name: &StageName) -> Value {
    let record = view.stages.get(name).map(|record| &record.value);
    let placed = shards(view).find(|(_, shard)| shard.stage == *name);
    let claim = placed.and_then(|(slot, _)| claim_of(view, slot, name));
    let (state, reason) = state(record, placed.is_some(), claim);
    let load = record.map(|record| &record.load);
    json!({
        "name": name,
        "host": record.map(|record| &record.host),
        "pid": record.map(|record| record.pid),
        "version": record.map(|record| &record.version),
        "endpoint": record.map(|record| &record.endpoint),
        "slot": placed.map(|(slot, _)| slot),
        "layers": placed.map(|(_, shard)| shard.layers),
        "pinned": view.pins.get(name).map(|pin| pin.value),
        "state": state,
        "reason": reason,
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

/// The claim of `name` on `slot` of the newest generation.
fn claim_of<'a>(view: &'a ClusterView, slot: u32, name: &StageName) -> Option<&'a ClaimRecord> {
    let generation = view.placement.as_ref()?.value.generation();
    let claim = &view.claims.get(&(generation, slot))?.value;
    (claim.stage == *name).then_some(claim)
}

fn state<'a>(
    record: Option<&StageRecord>,
    placed: bool,
    claim: Option<&'a ClaimRecord>,
) -> (&'static str, Option<&'a str>) {
    match claim.map(|claim| &claim.state) {
        // A claim is under its stage's lease: without the stage it is about to go, too.
        _ if record.is_none() => ("gone", None),
        Some(ClaimState::Loading) => ("loading", None),
        Some(ClaimState::Ready) => ("ready", None),
        Some(ClaimState::Serving) => ("serving", None),
        Some(ClaimState::Failed { reason }) => ("failed", Some(reason)),
        None if placed => ("unclaimed", None),
        None if record.is_some_and(|record| record.leaving) => ("leaving", None),
        None => ("standby", None),
    }
}
