//! `GET /distributed/status`: the layers, the state and the costs of each stage. The stages measure these figures
//! themselves and write them to the store. The engine's report derives the states from them.

use engine::expert_report::ExpertReport;
use engine::generate::PipelineStatus;
use engine::link_lines::{LinkLine, interface_in_use, links};
use engine::report::{ClusterReport, StageReport};
use engine::view::{ClusterView, Complaint, PinReport};
use http::StatusCode;
use schema::record::{
    ClaimRecord, DeviceKind, GatewayRecord, KvType, MemoryUse, ModelRecord, NetworkInterface, Pin, Placement,
    RefusedFrame, Shard, Share, Speeds, TouchedExperts,
};
use schema::{Fingerprint, Generation, LayerRange, StageName};
use serde::Serialize;
use warp::reply::Response;

use crate::http::error::json_response;
use crate::http::limits::LINKS_MAX;
use crate::http::served_model::ServedModel;

/// The cluster as the store shows it, and the pipeline as this gateway runs it. `null` stands for a value that is not
/// known.
#[derive(Debug, Serialize)]
struct StatusBody<'a> {
    serving: bool,
    reason: Option<&'a str>,
    missing_layers: &'a [[u32; 2]],
    generation: Option<Generation>,
    model: Option<ModelBody<'a>>,
    placement: Option<PlacementBody<'a>>,
    stages: Vec<StageBody<'a>>,
    pins: &'a [PinReport],
    gateways: Vec<GatewayBody<'a>>,
    /// The links between machines.
    links: Vec<LinkLine>,
    store: StoreBody<'a>,
    kv: KvUseBody,
    running: usize,
    waiting: usize,
    tokens_per_second: f64,
    complaints: Vec<ComplaintBody<'a>>,
}

#[derive(Debug, Serialize)]
struct ModelBody<'a> {
    name: &'a str,
    architecture: &'a str,
    fingerprint: &'a Fingerprint,
    layers: u32,
    context_tokens: u32,
    /// Tokens of keys and values for which every stage has room now.
    kv_tokens: u32,
    /// The most that they become, if they follow the stages' memory. Left out if they were told.
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_tokens_max: Option<u32>,
    kv_type: KvType,
    stages_min: u32,
}

#[derive(Debug, Serialize)]
struct PlacementBody<'a> {
    generation: Generation,
    shards: Vec<ShardBody<'a>>,
}

#[derive(Debug, Serialize)]
struct ShardBody<'a> {
    slot: u32,
    layers: LayerRange,
    stage: &'a StageName,
}

#[derive(Debug, Serialize)]
struct StageBody<'a> {
    name: &'a StageName,
    host: Option<&'a str>,
    pid: Option<u32>,
    version: Option<&'a str>,
    endpoint: Option<&'a str>,
    device: Option<DeviceKind>,
    chip: Option<&'a str>,
    threads: Option<u32>,
    slot: Option<u32>,
    layers: Option<LayerRange>,
    pinned: Option<Pin>,
    state: &'static str,
    reason: Option<&'a str>,
    /// Layers whose weights it has read into memory without holding them. Left out if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    standby: Option<&'a [LayerRange]>,
    memory: MemoryBody,
    /// Left out of layers without experts.
    #[serde(skip_serializing_if = "Option::is_none")]
    experts: Option<ExpertReport>,
    kv: Option<KvBody>,
    speed: Option<&'a Speeds>,
    /// The interface over which frames of other machines come. Left out of a stage that only this machine reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<&'a NetworkInterface>,
    link_us: Option<u32>,
    tokens_total: Option<u64>,
    tokens_per_second: Option<f64>,
    busy: Option<f64>,
    idle_input: Option<f64>,
    idle_output: Option<f64>,
    sent_bytes_total: Option<u64>,
    frames_refused: Option<u64>,
    /// The last of them.
    frame_refused: Option<&'a RefusedFrame>,
}

#[derive(Debug, Serialize)]
struct MemoryBody {
    /// The device's memory.
    total_bytes: Option<u64>,
    budget_bytes: Option<u64>,
    bound_bytes: Option<u64>,
    weights_bytes: Option<u64>,
    /// The parts of the bound beside the weights, by the model's record.
    kv_bytes: Option<u64>,
    scratch_bytes: Option<u64>,
    /// Of the weights, those that are copies in another form than the file's.
    copied_bytes: Option<u64>,
    used: Option<MemoryUse>,
}

/// The room for keys and values that a claim names.
#[derive(Debug, Serialize)]
struct KvBody {
    blocks: u32,
    block_tokens: u32,
    /// Bytes of the blocks of layers without a window, at most.
    bytes: u64,
    /// Blocks of layers with a window, and their bytes, at most.
    window_blocks: u32,
    window_bytes: u64,
}

/// The blocks of keys and values of this gateway.
#[derive(Debug, Serialize)]
struct KvUseBody {
    blocks: u32,
    used: u32,
    window_blocks: u32,
    window_used: u32,
}

#[derive(Debug, Serialize)]
struct GatewayBody<'a> {
    slot: u32,
    trouble: Option<&'a str>,
    url: &'a str,
    host: &'a str,
    pid: u32,
    version: &'a str,
    share: Share,
}

#[derive(Debug, Serialize)]
struct StoreBody<'a> {
    reachable: bool,
    revision: u64,
    alarms: &'a [String],
}

#[derive(Debug, Serialize)]
struct ComplaintBody<'a> {
    key: &'a str,
    reason: &'a str,
}

/// The status of the cluster and of this gateway's pipeline.
pub(crate) fn show(state: &ServedModel) -> Response {
    let (status, view) = (state.pipeline.status(), state.pipeline.view());
    json_response(StatusCode::OK, &StatusBody::new(&status, &view, &ClusterReport::new(&view)))
}

/// The same as a value. Empty if a figure is no number in JSON.
pub(crate) fn status_value(state: &ServedModel) -> serde_json::Value {
    let (status, view) = (state.pipeline.status(), state.pipeline.view());
    serde_json::to_value(StatusBody::new(&status, &view, &ClusterReport::new(&view))).unwrap_or_default()
}

// === impl StatusBody ===

impl<'a> StatusBody<'a> {
    fn new(status: &'a PipelineStatus, view: &'a ClusterView, report: &'a ClusterReport<'a>) -> Self {
        let model = view.model.as_ref().map(|model| &model.value);
        let store =
            StoreBody { reachable: status.store_reachable, revision: view.revision, alarms: &status.store_alarms };
        Self {
            serving: status.serving,
            reason: (!status.serving).then_some(status.reason.as_str()),
            missing_layers: &status.missing_layers,
            generation: view.placed(),
            model: model.map(|model| ModelBody::new(model, view)),
            placement: view.placement.as_ref().map(|placement| PlacementBody::new(&placement.value)),
            stages: report.stages.iter().map(|stage| StageBody::new(stage, model, view)).collect(),
            pins: &report.pins,
            gateways: report.gateways.iter().map(|(slot, gateway)| GatewayBody::new(*slot, gateway)).collect(),
            links: links(view).into_iter().take(LINKS_MAX).collect(),
            store,
            kv: KvUseBody {
                blocks: status.kv_blocks.full,
                used: status.kv_blocks_used.full,
                window_blocks: status.kv_blocks.window,
                window_used: status.kv_blocks_used.window,
            },
            running: status.running,
            waiting: status.waiting,
            tokens_per_second: status.tokens_per_second,
            complaints: view.complaints.iter().map(ComplaintBody::new).collect(),
        }
    }
}

// === impl ModelBody ===

impl<'a> ModelBody<'a> {
    fn new(model: &'a ModelRecord, view: &ClusterView) -> Self {
        Self {
            name: &model.name,
            architecture: &model.architecture,
            fingerprint: &model.fingerprint,
            layers: model.layers,
            context_tokens: model.context_tokens,
            kv_tokens: view.kv_tokens().unwrap_or(model.kv_tokens),
            kv_tokens_max: model.kv_growth.map(|_| model.kv_tokens_max()),
            kv_type: model.kv_type,
            stages_min: model.stages_min,
        }
    }
}

// === impl PlacementBody ===

impl<'a> PlacementBody<'a> {
    fn new(placement: &'a Placement) -> Self {
        let shard = |(slot, shard): (u32, &'a Shard)| ShardBody { slot, layers: shard.layers, stage: &shard.stage };
        Self { generation: placement.generation(), shards: (0..).zip(placement.shards()).map(shard).collect() }
    }
}

// === impl StageBody ===

impl<'a> StageBody<'a> {
    fn new(stage: &'a StageReport<'a>, model: Option<&ModelRecord>, view: &'a ClusterView) -> Self {
        let StageReport { record, claim, .. } = stage;
        let load = record.map(|record| &record.load);
        // A claim may name layers that the model has not.
        let is_known = |model: &&ModelRecord, layers: LayerRange| layers.end() as usize <= model.layer_bytes.len();
        let bytes = claim.and_then(|claim| {
            let model = model.filter(|model| is_known(model, claim.layers));
            model.map(|model| model.as_claimed(claim).shard_bytes(claim.layers))
        });
        Self {
            name: stage.name,
            host: record.map(|record| record.host.as_str()),
            pid: record.map(|record| record.pid),
            version: record.map(|record| record.version.as_str()),
            endpoint: record.map(|record| record.endpoint.as_str()),
            device: record.map(|record| record.device),
            chip: record.map(|record| record.chip.as_str()),
            threads: record.map(|record| record.threads),
            slot: stage.slot,
            layers: stage.layers,
            pinned: stage.pin,
            state: stage.state.word(),
            reason: stage.reason.as_deref(),
            standby: record.map(|record| record.standby.as_slice()).filter(|standby| !standby.is_empty()),
            memory: MemoryBody {
                total_bytes: record.map(|record| record.memory_total_bytes),
                budget_bytes: record.map(|record| record.memory_budget_bytes),
                bound_bytes: claim.map(|claim| claim.memory_bound_bytes),
                weights_bytes: claim.map(|claim| claim.weights_bytes),
                kv_bytes: bytes.map(|bytes| bytes.kv),
                scratch_bytes: bytes.map(|bytes| bytes.scratch),
                copied_bytes: claim.map(|claim| claim.copied_bytes),
                // The experts are shown beside it.
                used: load.map(|load| MemoryUse { experts: TouchedExperts::default(), ..load.memory.clone() }),
            },
            experts: load.and_then(|load| ExpertReport::of(&load.memory)),
            kv: claim.map(|claim| KvBody::new(claim, model)),
            speed: record.map(|record| &record.speed),
            interface: record.and_then(|record| interface_in_use(view, record)),
            link_us: record.map(|record| record.link_us),
            tokens_total: load.map(|load| load.tokens_total),
            tokens_per_second: load.map(|load| load.tokens_per_second),
            busy: load.map(|load| load.busy),
            idle_input: load.map(|load| load.idle_input),
            idle_output: load.map(|load| load.idle_output),
            sent_bytes_total: load.map(|load| load.sent_bytes_total),
            frames_refused: load.map(|load| load.frames_refused),
            frame_refused: load.and_then(|load| load.frame_refused.as_ref()),
        }
    }
}

// === impl KvBody ===

impl KvBody {
    fn new(claim: &ClaimRecord, model: Option<&ModelRecord>) -> Self {
        let bytes = model.map(|model| model.as_claimed(claim).kv_bytes_of(claim.layers)).unwrap_or_default();
        let room = claim.kv_blocks.saturating_mul(claim.kv_block_tokens);
        let window_blocks = model.map_or(0, |model| model.kv_kinds().pool(room).window);
        Self {
            blocks: claim.kv_blocks,
            block_tokens: claim.kv_block_tokens,
            bytes: bytes.full,
            window_blocks,
            window_bytes: bytes.window,
        }
    }
}

// === impl GatewayBody ===

impl<'a> GatewayBody<'a> {
    fn new(slot: u32, gateway: &'a GatewayRecord) -> Self {
        Self {
            slot,
            trouble: gateway.trouble.as_deref(),
            url: &gateway.url,
            host: &gateway.host,
            pid: gateway.pid,
            version: &gateway.version,
            share: gateway.share,
        }
    }
}

// === impl ComplaintBody ===

impl<'a> ComplaintBody<'a> {
    fn new(complaint: &'a Complaint) -> Self {
        Self { key: &complaint.key, reason: &complaint.reason }
    }
}
