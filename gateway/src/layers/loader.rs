//! A loader that fetches the bytes of layers before it lets another one map them.

use std::ops::Range;
use std::sync::Arc;

use engine::runner::{LoadError, LoadedShard, Loader};
use schema::LayerRange;
use schema::record::{KvRoom, MemoryUse, StageRecord};
use stages::weights::ModelFile;
use tracing::warn;

use super::activity::{Activity, NotedRunner};
use super::error::LayersError;
use super::fetch::LayerFetch;
use super::limits::STORED_RUNS_MAX;
use crate::error_chain::chain;

/// A loader of a model of which only parts are on this machine.
pub struct FetchingLoader {
    inner: Arc<dyn Loader>,
    file: ModelFile,
    fetch: Arc<LayerFetch>,
    /// The address at which others get what was fetched.
    endpoint: Option<String>,
    /// The activity of its runners.
    activity: Arc<Activity>,
}

// === impl FetchingLoader ===

impl FetchingLoader {
    /// Loads by `inner` from `file`, once `fetch` has brought the layers, which others get at `endpoint`. `activity` is
    /// that of its runners from then on.
    pub fn new(
        inner: Arc<dyn Loader>,
        file: ModelFile,
        fetch: Arc<LayerFetch>,
        endpoint: Option<String>,
        activity: Arc<Activity>,
    ) -> Self {
        Self { inner, file, fetch, endpoint, activity }
    }

    /// The bytes of `layers`. None for layers that the model does not have, which `inner` refuses with the reason.
    fn needed(&self, layers: LayerRange) -> Vec<Vec<Range<u64>>> {
        self.file.bytes_of(layers).unwrap_or_default()
    }
}

impl Loader for FetchingLoader {
    fn memory_bound(&self, layers: LayerRange, room: KvRoom) -> u64 {
        self.inner.memory_bound(layers, room)
    }

    fn load(&self, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> Result<LoadedShard, LoadError> {
        if self.memory_bound(layers, room) <= budget_bytes {
            let fetched = self.fetch.layers(layers, &self.needed(layers), &|| true);
            fetched.map_err(|error| LoadError::Failed(format!("cannot fetch layers {layers}: {}", chain(&error))))?;
        }
        let LoadedShard { runner, weights_bytes, copied_bytes, kv_blocks } =
            self.inner.load(layers, room, budget_bytes)?;
        let runner = Box::new(NotedRunner::new(runner, self.activity.clone()));
        Ok(LoadedShard { runner, weights_bytes, copied_bytes, kv_blocks })
    }

    fn fetch(&self, layers: LayerRange, wanted: &dyn Fn() -> bool) {
        match self.fetch.layers(layers, &self.needed(layers), wanted) {
            Ok(()) | Err(LayersError::Stopped) => {}
            Err(error) => warn!(%layers, error = %chain(&error), "cannot fetch layers ahead"),
        }
    }

    fn read_ahead(&self, layers: LayerRange, bytes_max: u64, wanted: &dyn Fn() -> bool) -> u64 {
        // A hole would be read as zeros, which are of no use in memory.
        if self.fetch.has(&self.needed(layers)).unwrap_or(false) {
            return self.inner.read_ahead(layers, bytes_max, wanted);
        }
        0
    }

    fn describe(&self) -> StageRecord {
        let stored = self.fetch.stored(&self.file).map(|mut layers| {
            layers.truncate(STORED_RUNS_MAX);
            layers
        });
        // Whoever cannot read the map has to fetch all of it.
        let stored = Some(stored.unwrap_or_default());
        StageRecord { stored, layers_endpoint: self.endpoint.clone(), ..self.inner.describe() }
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { fetched_percent: self.fetch.percent(), ..self.inner.memory() }
    }
}
