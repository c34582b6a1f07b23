//! `GET /distributed/gpu-info`: the device of each live stage.

use http::StatusCode;
use schema::StageName;
use schema::record::{DeviceKind, MemoryUse, Speeds, StageRecord, TouchedExperts};
use serde::Serialize;
use warp::reply::Response;

use crate::http::error::json_response;
use crate::http::served_model::ServedModel;

/// The devices of all live stages, as the stages detected them.
#[derive(Debug, Serialize)]
struct GpuInfo<'a> {
    devices: Vec<Device<'a>>,
}

#[derive(Debug, Serialize)]
struct Device<'a> {
    stage: &'a StageName,
    host: &'a str,
    device: DeviceKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_reason: Option<&'a str>,
    chip: &'a str,
    threads: u32,
    speed: &'a Speeds,
    memory_total_bytes: u64,
    memory_budget_bytes: u64,
    memory_used_bytes: u64,
    memory: MemoryUse,
}

/// Answers with the devices of all live stages.
pub(crate) fn show(state: &ServedModel) -> Response {
    let view = state.pipeline.view();
    let devices = view.stages.iter().map(|(name, record)| Device::new(name, &record.value)).collect();
    json_response(StatusCode::OK, &GpuInfo { devices })
}

// === impl Device ===

impl<'a> Device<'a> {
    fn new(name: &'a StageName, stage: &'a StageRecord) -> Self {
        // `/distributed/status` has the experts.
        let memory = MemoryUse { experts: TouchedExperts::default(), ..stage.load.memory.clone() };
        Self {
            stage: name,
            host: &stage.host,
            device: stage.device,
            device_reason: stage.device_reason.as_deref(),
            chip: &stage.chip,
            threads: stage.threads,
            speed: &stage.speed,
            memory_total_bytes: stage.memory_total_bytes,
            memory_budget_bytes: stage.memory_budget_bytes,
            memory_used_bytes: memory.pss_bytes.max(memory.rss_bytes),
            memory,
        }
    }
}
