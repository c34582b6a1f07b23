//! Decides if models fit this machine, and a cluster as its stages offer themselves. The bound is the planner's.

use std::time::Duration;

use engine::planner::{NoPlan, PlanError};
use engine::runner::KV_BLOCK_TOKENS;
use engine::view::{ClusterView, Versioned};
use schema::StageName;
use schema::record::{KvRoom, ModelRecord, Speeds, StageRecord};
use serde::Serialize;
use stages::weights::ModelFile;

use super::cluster;
use crate::models::Entry;
use crate::settings::{ClusterSettings, ComputeSettings, KV_TOKENS_MAX, KvSize, ModelSettings, defaults};

/// Scratch that a stage of a model takes whose header is not here, in bytes: that of a model of 8 B parameters with two
/// threads and 8,192 tokens, rounded up.
const SCRATCH_BYTES: u64 = 128 << 20;
/// Longest wait for a cluster's store, for verbs that can do without one.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(2);
/// The name of this machine's only stage.
const HERE: &str = "this-machine";

/// A model's room in the memory of some stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(super) enum Fit {
    /// It has a plan.
    Fits,
    /// Memory is missing.
    Short {
        /// The missing bytes. 0 if only the pieces are too small, since a layer is held whole.
        missing_bytes: u64,
    },
    /// It has none for another reason.
    No {
        /// The reason.
        reason: String,
    },
}

// === impl Fit ===

impl Fit {
    /// The room of `model` on the stages of `view`, whatever they serve now.
    pub(super) fn of(view: &ClusterView, model: &ModelRecord) -> Self {
        match NoPlan::find(view, model).map(|no_plan| no_plan.error) {
            None => Self::Fits,
            Some(PlanError::Memory(shortage)) => Self::Short { missing_bytes: shortage.missing_bytes },
            Some(error) => Self::No { reason: error.to_string() },
        }
    }

    /// The same as a cell of a table.
    pub(super) fn cell(&self) -> String {
        match self {
            Self::Fits => "fits".to_owned(),
            Self::Short { missing_bytes: 0 } => "too small".to_owned(),
            Self::Short { missing_bytes } => format!("-{}", super::output::bytes(*missing_bytes)),
            Self::No { .. } => "no".to_owned(),
        }
    }
}

/// A cluster with one stage, this machine, which may use what `compute` says, and has these speeds.
pub(super) fn this_machine(compute: &ComputeSettings, speed: Speeds) -> ClusterView {
    let machine = stages::memory::machine();
    let budget = compute.memory_budget_bytes.unwrap_or(machine.memory_available_bytes);
    let threads = u32::try_from(compute.threads).unwrap_or(u32::MAX);
    let record = StageRecord { speed, threads, chip: machine.chip, ..StageRecord::new(&machine.host, budget) };
    let name: Option<StageName> = HERE.parse().ok();
    let stages = name.map(|name| (name, Versioned { value: record, mod_revision: 1 }));
    ClusterView { stages: stages.into_iter().collect(), ..ClusterView::default() }
}

/// The stages of the cluster, without what they hold now. `None` if its store does not answer or no stage is there.
pub(super) async fn reachable(settings: &ClusterSettings) -> Option<ClusterView> {
    let read = tokio::time::timeout(CLUSTER_TIMEOUT, cluster::read_once(settings)).await;
    let view = read.ok()?.ok()?;
    let stages: std::collections::BTreeMap<_, _> =
        view.stages.into_iter().filter(|(_, stage)| !stage.value.leaving).collect();
    (!stages.is_empty()).then(|| ClusterView { stages, ..ClusterView::default() })
}

/// The record of a model of the catalogue whose file is not here: equal layers that have all of its bytes.
pub(super) fn estimate(entry: &Entry, settings: &ModelSettings) -> ModelRecord {
    let layers = entry.layers.max(1);
    let each = entry.bytes.div_ceil(layers.into());
    // A value has two bytes as f16.
    let values = entry.kv_bytes_per_token / 2 / u64::from(layers);
    let kv = settings.kv_type.bytes(values).unwrap_or(entry.kv_bytes_per_token / u64::from(layers));
    let read = |bytes: u64| (u128::from(bytes) * u128::from(entry.active) / u128::from(entry.parameters.max(1))) as u64;
    ModelRecord {
        architecture: entry.family.clone(),
        layer_read_bytes: vec![read(each); layers as usize],
        layer_multiplications: vec![entry.active / u64::from(layers); layers as usize],
        layer_format: Some(main_format(&entry.format).to_owned()),
        kv_bytes_per_token_layer: kv,
        kv_tokens: tokens(settings, kv.saturating_mul(layers.into())),
        kv_type: settings.kv_type,
        scratch_bytes: SCRATCH_BYTES,
        ..ModelRecord::new(&entry.name, vec![each; layers as usize])
    }
}

/// The record of a model file.
///
/// # Errors
/// [`stages::RecordError`] when the model is not supported.
pub(super) fn record(file: &ModelFile, settings: &ModelSettings) -> Result<ModelRecord, stages::RecordError> {
    let room = |tokens| KvRoom { tokens, kv_type: settings.kv_type };
    let with_room = |tokens| stages::model_record(file, room(tokens), 1);
    match settings.kv {
        KvSize::Memory => stages::growing_record(file, room(defaults::KV_TOKENS), 1),
        KvSize::Tokens(tokens) => with_room(tokens),
        KvSize::Bytes(bytes) => with_room(with_room(KV_BLOCK_TOKENS)?.kv_tokens_within(bytes, KV_TOKENS_MAX).max(1)),
    }
}

/// The tokens for which there is to be room, if one takes `bytes_per_token`.
fn tokens(settings: &ModelSettings, bytes_per_token: u64) -> u32 {
    match settings.kv {
        KvSize::Memory => defaults::KV_TOKENS,
        KvSize::Tokens(tokens) => tokens,
        KvSize::Bytes(bytes) => u32::try_from(bytes / bytes_per_token.max(1)).unwrap_or(u32::MAX),
    }
}

/// The format of most weights of a mix, such as Q4_K of Q4_K_M.
fn main_format(mix: &str) -> &str {
    mix.strip_suffix("_M").or(mix.strip_suffix("_S")).or(mix.strip_suffix("_L")).unwrap_or(mix)
}

#[cfg(test)]
pub(super) mod tests {
    use schema::record::KvType;

    use super::*;
    use crate::models::catalogue;

    pub(in crate::cli) fn settings() -> ModelSettings {
        ModelSettings::new(crate::settings::ModelOptions::default(), 1).unwrap()
    }

    pub(in crate::cli) fn machine(gigabytes: u64) -> ClusterView {
        let device = stages::device::DeviceChoice::Cpu;
        let compute = ComputeSettings { memory_budget_bytes: Some(gigabytes << 30), device, threads: 2 };
        this_machine(&compute, Speeds::new())
    }

    fn entry(name: &str) -> &'static Entry {
        catalogue().iter().find(|entry| entry.name == name).unwrap()
    }

    #[test]
    fn a_model_fits_or_the_missing_memory_is_told() {
        let model = estimate(entry("qwen3-14b"), &settings());
        assert_eq!(model.kv_bytes_per_token(), 163_840);
        assert_eq!(Fit::of(&machine(16), &model), Fit::Fits);
        let Fit::Short { missing_bytes } = Fit::of(&machine(8), &model) else { panic!("it fits 8 GiB") };
        let needed = 9_001_752_960 + 163_840 * 8192 + SCRATCH_BYTES;
        assert!(missing_bytes.abs_diff(needed - (8 << 30)) < 40, "{missing_bytes}");
        assert_eq!(Fit::Short { missing_bytes: 3 << 29 }.cell(), "-1.5 GiB");
    }

    #[test]
    fn room_by_bytes_and_smaller_keys_and_values_count() {
        let bytes = ModelSettings { kv: KvSize::Bytes(163_840 * 100), ..settings() };
        assert_eq!(estimate(entry("qwen3-14b"), &bytes).kv_tokens, 100);
        let small = ModelSettings { kv_type: KvType::Q8, ..settings() };
        assert_eq!(estimate(entry("qwen3-14b"), &small).kv_bytes_per_token(), 163_840 / 2 / 32 * 34);
    }

    #[test]
    fn a_mixture_reads_its_active_share() {
        let model = estimate(entry("qwen3-30b-a3b"), &settings());
        let layer = model.layer(0);
        assert!((0.10..0.12).contains(&(layer.read_per_token as f64 / layer.weights as f64)));
        assert_eq!(layer.format, Some("Q4_K"));
    }
}
