//! Loads shards of one model file onto one candle device, within a memory budget.

use engine::runner::{LoadError, LoadedShard, Loader};
use schema::LayerRange;
use schema::record::{KvRoom, KvType, MemoryUse, StageRecord};

use super::bounds::{self, WeightsBytes};
use super::dense_model::DenseModel;
use super::hardware::Hardware;
use super::runner::CandleRunner;
use super::support;
use crate::loader::{chain, map_within};
use crate::memory;
use crate::model::{ModelSpec, UnsupportedModel};
use crate::shard::RunnerSetup;
use crate::weights::ModelFile;

/// Loads shards of one model file onto one device.
#[derive(Debug)]
pub struct CandleLoader {
    file: ModelFile,
    spec: ModelSpec,
    model: DenseModel,
    hardware: Hardware,
    threads: usize,
    budget_bytes: Option<u64>,
}

// === impl CandleLoader ===

impl CandleLoader {
    /// A loader of `file` onto `hardware`. Without a budget the stage may use the memory that the device has free now.
    /// `threads` is only announced in the stage's record, because candle itself decides how many threads feed a device.
    ///
    /// # Errors
    /// [`UnsupportedModel`] if the model is not supported, its tensors do not match its metadata, or the device does
    /// not compute the format of one. Nothing is mapped before these checks.
    pub fn new(
        file: ModelFile,
        hardware: Hardware,
        threads: usize,
        budget_bytes: Option<u64>,
    ) -> Result<Self, UnsupportedModel> {
        let spec = ModelSpec::read(file.header())?;
        spec.check_tensors(file.header())?;
        let model = DenseModel::of(&spec)?;
        support::check(&file, hardware.kind)?;
        Ok(Self { file, spec, model, hardware, threads, budget_bytes })
    }

    /// Bytes of the weights of `layers`. `load` refuses layers that cannot be mapped.
    fn weights_bytes(&self, layers: LayerRange) -> WeightsBytes {
        self.file
            .map(layers)
            .map_or_else(|_| WeightsBytes::default(), |shard| WeightsBytes::of(&shard, self.hardware.kind))
    }
}

impl Loader for CandleLoader {
    fn memory_bound(&self, layers: LayerRange, room: KvRoom) -> u64 {
        let last = layers.end() == self.model.layers;
        let WeightsBytes { device, host } = self.weights_bytes(layers);
        let kv = bounds::kv_bytes(&self.model, layers, room.tokens);
        // Host memory for copying is freed before keys, values and scratch are allocated.
        device.saturating_add(kv.saturating_add(bounds::scratch_bytes(&self.model, last, room.tokens)).max(host))
    }

    fn load(&self, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> Result<LoadedShard, LoadError> {
        if room.kv_type != KvType::F16 {
            let device = self.hardware.kind;
            return Err(LoadError::Failed(format!(
                "keys and values are to be kept as {}: expected f16 on {device:?}; q8_0 needs stages on the processor",
                room.kv_type
            )));
        }
        let shard = map_within(&self.file, layers, self.memory_bound(layers, room), budget_bytes)?;
        let setup = RunnerSetup { spec: self.spec.clone(), shard, room };
        let runner = CandleRunner::new(setup, &self.hardware).map_err(|error| LoadError::Failed(chain(&error)))?;
        let kv_blocks = runner.kv_blocks();
        Ok(LoadedShard {
            runner: Box::new(runner),
            weights_bytes: self.weights_bytes(layers).device,
            copied_bytes: 0,
            kv_blocks,
        })
    }

    fn read_ahead(&self, layers: LayerRange, bytes_max: u64, wanted: &dyn Fn() -> bool) -> u64 {
        self.file.map(layers).map_or(0, |shard| shard.read_ahead(bytes_max, wanted))
    }

    fn describe(&self) -> StageRecord {
        let device = self.hardware.memory();
        StageRecord {
            device: self.hardware.kind,
            chip: self.hardware.chip(),
            threads: self.threads as u32,
            memory_total_bytes: device.total_bytes,
            ..StageRecord::new(&memory::machine().host, self.budget_bytes.unwrap_or(device.available_bytes))
        }
    }

    fn memory(&self) -> MemoryUse {
        memory::measure()
    }
}
