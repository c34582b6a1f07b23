//! Creates runners on the CPU from one model file, with a fixed number of threads and a memory budget.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use engine::runner::{LoadError, LoadedShard, Loader};
use schema::LayerRange;
use schema::record::{KvRoom, MemoryUse, StageRecord};

use crate::cpu::{CpuRunner, TouchedExperts};
use crate::kernels::ThreadPool;
use crate::memory;
use crate::model::{ModelSpec, UnsupportedModel};
use crate::shard::RunnerSetup;
use crate::weights::{MappedShard, ModelFile, Residency};

/// Loads shards of one model file onto the CPU.
#[derive(Debug)]
pub struct CpuLoader {
    file: ModelFile,
    spec: ModelSpec,
    pool: Arc<ThreadPool>,
    budget_bytes: u64,
    /// Resident bytes of the shard loaded last.
    residency: Mutex<Residency>,
    /// The experts that the shard loaded last has computed.
    touched: Mutex<Arc<TouchedExperts>>,
}

// === impl CpuLoader ===

impl CpuLoader {
    /// A loader of `file` that computes on `threads` threads, the caller's included. Without a budget the stage may use
    /// the memory that is available on the machine now.
    ///
    /// # Errors
    /// [`UnsupportedModel`] when the model is not supported or its tensors do not match its metadata.
    pub fn new(file: ModelFile, threads: NonZeroUsize, budget_bytes: Option<u64>) -> Result<Self, UnsupportedModel> {
        let spec = ModelSpec::read(file.header())?;
        spec.check_tensors(file.header())?;
        // Read once: the available memory changes all the time, and a changing budget would move shards between stages.
        let budget_bytes = budget_bytes.unwrap_or_else(|| memory::machine().memory_available_bytes);
        let (pool, residency) = (Arc::new(ThreadPool::new(threads)), Mutex::default());
        Ok(Self { file, spec, pool, budget_bytes, residency, touched: Mutex::default() })
    }

    /// The model's sizes.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }
}

/// Maximum scratch, in bytes, that a shard of this model needs on `threads` threads.
pub fn scratch_bytes(spec: &ModelSpec, threads: usize, kv_tokens: u32) -> u64 {
    CpuRunner::scratch_bytes(spec, true, threads, kv_tokens)
}

impl Loader for CpuLoader {
    fn memory_bound(&self, layers: LayerRange, room: KvRoom) -> u64 {
        // Mapping reads nothing from disk. Layers that cannot be mapped count as 0 bytes: `load` refuses them with the
        // reason.
        let weights = self.file.map(layers).map_or(0, |shard| shard.bytes());
        weights.saturating_add(CpuRunner::bytes(&self.spec, layers, self.pool.threads(), room))
    }

    fn load(&self, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> Result<LoadedShard, LoadError> {
        let shard = map_within(&self.file, layers, self.memory_bound(layers, room), budget_bytes)?;
        shard.prefetch();
        let copied_bytes = shard.copied_bytes().saturating_add(CpuRunner::copied_bytes(&self.spec, layers));
        // The runner's own copies are beside the weights that it maps.
        let weights_bytes = shard.bytes().saturating_add(CpuRunner::copied_bytes(&self.spec, layers));
        *self.residency.lock().unwrap_or_else(PoisonError::into_inner) = shard.residency();
        let setup = RunnerSetup { spec: self.spec.clone(), shard, room };
        let runner = CpuRunner::new(setup, Arc::clone(&self.pool)).map_err(|error| LoadError::Failed(chain(&error)))?;
        let kv_blocks = runner.kv_blocks();
        *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = runner.touched();
        Ok(LoadedShard { runner: Box::new(runner), weights_bytes, copied_bytes, kv_blocks })
    }

    fn read_ahead(&self, layers: LayerRange, bytes_max: u64, wanted: &dyn Fn() -> bool) -> u64 {
        self.file.map(layers).map_or(0, |shard| shard.read_ahead(bytes_max, wanted))
    }

    fn describe(&self) -> StageRecord {
        let machine = memory::machine();
        StageRecord {
            chip: machine.chip,
            threads: self.pool.threads() as u32,
            memory_total_bytes: machine.memory_total_bytes,
            ..StageRecord::new(&machine.host, self.budget_bytes)
        }
    }

    fn memory(&self) -> MemoryUse {
        let residency = self.residency.lock().unwrap_or_else(PoisonError::into_inner);
        let touched = Arc::clone(&self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        MemoryUse {
            weights_resident_bytes: residency.bytes(),
            experts_touched: touched.count(),
            experts: touched.record(),
            ..memory::measure()
        }
    }
}

/// Maps `layers` of `file` on behalf of a loader: if what they need is within the budget, and the file is what it was.
pub(crate) fn map_within(
    file: &ModelFile,
    layers: LayerRange,
    needed_bytes: u64,
    budget_bytes: u64,
) -> Result<MappedShard, LoadError> {
    if needed_bytes > budget_bytes {
        return Err(LoadError::OverBudget { layers, needed_bytes, budget_bytes });
    }
    file.check_unchanged().map_err(|error| LoadError::Failed(chain(&error)))?;
    file.map(layers).map_err(|error| LoadError::Failed(chain(&error)))
}

/// An error and its causes, joined into one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
