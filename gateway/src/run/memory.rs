//! The memory that the stages of a `baton up` may come to take, beside that of other clusters of the machine.

use engine::limits::ROOM_FREE_PARTS;
use schema::LayerRange;
use schema::record::ModelRecord;
use stages::device::DeviceChoice;
use tracing::warn;

use super::RunError;
use super::limits::DEVICE_COPIES;
use crate::running::{Demand, Grant, MachineMemory, RunningFolder, UpLock};
use crate::settings::UpSettings;

/// The memory for the stages of `model`: what other clusters of this machine leave of it. Without a folder for records,
/// nobody knows of the others. `held` bytes are promised to the stages of another model of this cluster, and stay so.
pub(super) fn promise(
    settings: &UpSettings,
    model: &ModelRecord,
    lock: Option<&mut UpLock>,
    held: u64,
) -> Result<Grant, RunError> {
    let machine = stages::memory::machine();
    let machine = MachineMemory { total: machine.memory_total_bytes, available: machine.memory_available_bytes };
    let demand = demand(settings, model);
    if let (Some(state), Some(lock)) = (&settings.state, lock) {
        match RunningFolder::new(state).promise(lock, held, |others| demand.grant(machine, others)) {
            Ok(granted) => return Ok(granted?),
            Err(error) => warn!(%error, "other clusters of this machine will not know how much memory this one takes"),
        }
    }
    Ok(demand.grant(machine, &[])?)
}

/// The memory that the stages of this process may take to serve `model`, of which they hold each layer once.
fn demand(settings: &UpSettings, model: &ModelRecord) -> Demand {
    let all = LayerRange::new(0, model.layers);
    let bytes = |tokens| {
        let all = all.map(|all| model.with_room(tokens).shard_bytes(all));
        all.map_or(0, |bytes| bytes.memory_bound().saturating_add(model.embedding_bytes))
    };
    let (least, most) = (bytes(model.kv_tokens), bytes(model.kv_tokens_max()));
    // A room that follows memory leaves a part of the rest free, which it can have only beside that. And the record
    // does not count all that is taken beside the weights.
    let free = most.saturating_sub(least).div_ceil(ROOM_FREE_PARTS - 1).saturating_add(most / ROOM_FREE_PARTS);
    let most = most.saturating_add(free);
    let may_copy = matches!(settings.compute.device, DeviceChoice::Metal | DeviceChoice::Cuda);
    let scratch = model.with_room(model.kv_tokens_max()).scratch_bytes;
    let with_others = settings.etcd.is_some() || settings.share.is_some();
    Demand {
        stages: settings.stage_names.len() as u64,
        told: settings.compute.memory_budget_bytes,
        least: if with_others { scratch } else { least },
        most: if may_copy { most.saturating_mul(DEVICE_COPIES) } else { most },
        scratch,
    }
}
