//! A loader whose record says why the stage computes where it does, for devices that are not the one asked for.

use engine::runner::{LoadError, LoadedShard, Loader};
use schema::LayerRange;
use schema::record::{KvRoom, MemoryUse, StageRecord};

/// A loader, and the reason for its device.
pub(crate) struct Reasoned {
    loader: Box<dyn Loader>,
    reason: String,
}

// === impl Reasoned ===

impl Reasoned {
    /// `loader`, whose record has `reason`.
    pub(crate) fn new(loader: Box<dyn Loader>, reason: String) -> Self {
        Self { loader, reason }
    }
}

impl Loader for Reasoned {
    fn memory_bound(&self, layers: LayerRange, room: KvRoom) -> u64 {
        self.loader.memory_bound(layers, room)
    }

    fn load(&self, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> Result<LoadedShard, LoadError> {
        self.loader.load(layers, room, budget_bytes)
    }

    fn fetch(&self, layers: LayerRange, wanted: &dyn Fn() -> bool) {
        self.loader.fetch(layers, wanted);
    }

    fn read_ahead(&self, layers: LayerRange, bytes_max: u64, wanted: &dyn Fn() -> bool) -> u64 {
        self.loader.read_ahead(layers, bytes_max, wanted)
    }

    fn describe(&self) -> StageRecord {
        StageRecord { device_reason: Some(self.reason.clone()), ..self.loader.describe() }
    }

    fn memory(&self) -> MemoryUse {
        self.loader.memory()
    }
}
