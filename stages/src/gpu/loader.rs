//! Loads shards of one model file onto one device, within a memory budget, and compares its kernels before it computes.

use engine::runner::{LoadError, LoadedShard, Loader};
use schema::LayerRange;
use schema::record::{KvRoom, KvType, MemoryUse, StageRecord};

use super::bounds;
use super::device::Adapter;
use super::limits::COMPARED_TOKENS;
use super::runner::GpuRunner;
use super::support;
use crate::loader::{chain, map_within};
use crate::memory;
use crate::model::{ModelSpec, UnsupportedModel};
use crate::shard::RunnerSetup;
use crate::weights::ModelFile;

/// Loads shards of one model file onto a device.
#[derive(Debug)]
pub struct GpuLoader<A> {
    file: ModelFile,
    spec: ModelSpec,
    adapter: A,
    threads: usize,
    budget_bytes: Option<u64>,
}

// === impl GpuLoader ===

impl<A: Adapter> GpuLoader<A> {
    /// A loader of `file` onto the device of `adapter`. Without a budget the stage may use the memory that the device
    /// has free now. `threads` is only announced in the stage's record.
    ///
    /// # Errors
    /// [`UnsupportedModel`] names the first feature or tensor that the kernels do not compute.
    pub fn new(
        file: ModelFile,
        adapter: A,
        threads: usize,
        budget_bytes: Option<u64>,
    ) -> Result<Self, UnsupportedModel> {
        let spec = ModelSpec::read(file.header())?;
        spec.check_tensors(file.header())?;
        support::check(&spec, &file, KvType::F16)?;
        Ok(Self { file, spec, adapter, threads, budget_bytes })
    }

    /// Compares the kernels on the first and the last layer, before a stage announces the device.
    ///
    /// # Errors
    /// [`LoadError`] names a kernel that computes wrongly, or says why the layers cannot be loaded.
    pub fn compare(&self) -> Result<(), LoadError>
    where
        A: 'static,
    {
        let (last, room) = (self.spec.layer_count(), KvRoom { tokens: COMPARED_TOKENS, kv_type: KvType::F16 });
        for layer in [0, last.saturating_sub(1)] {
            if let Some(layers) = LayerRange::new(layer, layer + 1) {
                self.load(layers, room, u64::MAX)?;
            }
        }
        Ok(())
    }
}

impl<A: Adapter + 'static> Loader for GpuLoader<A> {
    fn memory_bound(&self, layers: LayerRange, room: KvRoom) -> u64 {
        // Layers that cannot be mapped count as 0 bytes: `load` refuses them with the reason.
        let weights = self.file.map(layers).map_or(0, |shard| shard.bytes());
        weights.saturating_add(bounds::own_bytes(&self.spec, layers, room))
    }

    fn load(&self, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> Result<LoadedShard, LoadError> {
        let shard = map_within(&self.file, layers, self.memory_bound(layers, room), budget_bytes)?;
        let weights_bytes = shard.bytes();
        let setup = RunnerSetup { spec: self.spec.clone(), shard, room };
        let gpu = self.adapter.open().map_err(|error| LoadError::Failed(chain(&error)))?;
        let runner = GpuRunner::compared(setup, gpu).map_err(|error| LoadError::Failed(chain(&error)))?;
        let kv_blocks = runner.kv_blocks();
        Ok(LoadedShard { runner: Box::new(runner), weights_bytes, copied_bytes: 0, kv_blocks })
    }

    fn read_ahead(&self, layers: LayerRange, bytes_max: u64, wanted: &dyn Fn() -> bool) -> u64 {
        self.file.map(layers).map_or(0, |shard| shard.read_ahead(bytes_max, wanted))
    }

    fn describe(&self) -> StageRecord {
        let device = self.adapter.memory();
        StageRecord {
            device: self.adapter.kind(),
            chip: self.adapter.chip(),
            threads: self.threads as u32,
            memory_total_bytes: device.total_bytes,
            ..StageRecord::new(&memory::machine().host, self.budget_bytes.unwrap_or(device.available_bytes))
        }
    }

    fn memory(&self) -> MemoryUse {
        memory::measure()
    }
}
