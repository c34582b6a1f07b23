//! One stage in the status: what the store says of it. Pure.

use engine::expert_report::ExpertReport;
use engine::report::StageReport;
use schema::LayerRange;
use schema::record::{DeviceKind, MemoryUse, ModelRecord, Speeds, TouchedExperts};
use serde::Serialize;

/// One stage.
#[derive(Debug, Serialize)]
pub struct StageLine {
    /// The stage's name.
    pub stage: String,
    /// The stage's host. `None` if the stage is not registered.
    pub host: Option<String>,
    /// The device it computes on.
    pub device: Option<DeviceKind>,
    /// The reason for the device, if that is not the device that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_reason: Option<String>,
    /// The layers that the placement gives it.
    pub layers: Option<LayerRange>,
    /// The word of its [`engine::report::StageState`].
    pub state: &'static str,
    /// The reason of the state, if the state alone does not tell it.
    pub reason: Option<String>,
    /// Upper bound of the memory that its shard can take, in bytes.
    pub memory_bound_bytes: Option<u64>,
    /// Most memory that it may use, in bytes.
    pub memory_budget_bytes: Option<u64>,
    /// Memory that it uses, as the operating system counts it.
    pub memory: Option<MemoryUse>,
    /// Its experts, and those that were computed. `None` for layers without experts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts: Option<ExpertReport>,
    /// Size of its layers' weights, in bytes.
    pub weights_bytes: Option<u64>,
    /// Those of them that are copies in another form than the file's: nothing of them is mapped.
    pub copied_bytes: Option<u64>,
    /// Most bytes of keys and values of its layers without a window.
    pub kv_bytes: Option<u64>,
    /// Most bytes of keys and values of its layers with one.
    pub window_kv_bytes: Option<u64>,
    /// Speed of its multiplications by format of the weights, as the stage measured it.
    pub speed: Option<Speeds>,
    /// Token rows per second over the last reporting period.
    pub tokens_per_second: Option<f64>,
    /// Token rows since the stage started.
    pub tokens_total: Option<u64>,
    /// Share of the last reporting period spent computing, 0 to 1.
    pub busy: Option<f64>,
    /// Share of it with nothing to compute.
    pub idle_input: Option<f64>,
    /// Share of it spent waiting for the link to take results.
    pub idle_output: Option<f64>,
    /// Frames that the stage refused since it started.
    pub frames_refused: Option<u64>,
}

// === impl StageLine ===

impl StageLine {
    pub(super) fn new(stage: &StageReport<'_>, model: Option<&ModelRecord>) -> Self {
        let StageReport { record, claim, .. } = stage;
        let kv = model.zip(*claim).map(|(model, claim)| model.as_claimed(claim).kv_bytes_of(claim.layers));
        Self {
            stage: stage.name.to_string(),
            host: record.map(|record| record.host.clone()),
            device: record.map(|record| record.device),
            device_reason: record.and_then(|record| record.device_reason.clone()),
            layers: stage.layers,
            state: stage.state.word(),
            reason: stage.reason.as_deref().map(str::to_owned),
            memory_bound_bytes: claim.map(|claim| claim.memory_bound_bytes),
            memory_budget_bytes: record.map(|record| record.memory_budget_bytes),
            // The experts are shown beside it.
            memory: record.map(|record| MemoryUse { experts: TouchedExperts::default(), ..record.load.memory.clone() }),
            experts: record.and_then(|record| ExpertReport::of(&record.load.memory)),
            weights_bytes: claim.map(|claim| claim.weights_bytes),
            copied_bytes: claim.map(|claim| claim.copied_bytes),
            kv_bytes: kv.map(|kv| kv.full),
            window_kv_bytes: kv.map(|kv| kv.window),
            speed: record.map(|record| record.speed.clone()),
            tokens_per_second: record.map(|record| record.load.tokens_per_second),
            tokens_total: record.map(|record| record.load.tokens_total),
            busy: record.map(|record| record.load.busy),
            idle_input: record.map(|record| record.load.idle_input),
            idle_output: record.map(|record| record.load.idle_output),
            frames_refused: record.map(|record| record.load.frames_refused),
        }
    }
}
