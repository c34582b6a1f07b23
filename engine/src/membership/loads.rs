//! The loads of stages: their recent work and use of resources. They change all the time and no decision needs them,
//! so they lie under a prefix of their own that nobody watches: stages write them at a rate that falls with their
//! number, and those who show them read them at intervals.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schema::record::StageLoad;
use schema::{Key, Keyspace, StageName};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::debug;

use crate::limits::{LOADS_PER_SECOND_MAX, REPORT_EVERY};
use crate::store::{Compare, LeaseId, SharedStore, Store, StoreError, Txn, Write};
use crate::view::ClusterView;

/// The loads of a cluster's stages, by stage.
pub type Loads = BTreeMap<StageName, StageLoad>;

/// The interval at which each of `stages` stages writes its load: so long that all together make at most
/// [`LOADS_PER_SECOND_MAX`] writes a second.
pub(crate) fn load_interval(stages: usize) -> Duration {
    let stages = u32::try_from(stages).unwrap_or(u32::MAX);
    (Duration::from_secs(1) / LOADS_PER_SECOND_MAX).saturating_mul(stages).max(REPORT_EVERY)
}

/// Writes the load of stage `name` under its lease, provided the store has its record.
pub(crate) fn report_load(keyspace: &Keyspace, name: &StageName, load: &StageLoad, lease: LeaseId) -> Txn {
    let record = keyspace.name(&Key::Stage(name.clone()));
    // Loads are plain structs: serialising them cannot fail.
    let value = serde_json::to_vec(load).unwrap_or_default();
    let write = Write::Put { key: keyspace.load_name(name), value, lease: Some(lease) };
    Txn { compares: vec![Compare::Present { key: record }], writes: vec![write] }
}

/// Reads the loads of a cluster's stages. Those that cannot be read are left out.
///
/// # Errors
/// [`StoreError`] if the store does not answer.
pub async fn read_loads(store: &dyn Store, keyspace: &Keyspace) -> Result<Loads, StoreError> {
    let snapshot = store.read(keyspace.load_prefix()).await?;
    let load = |key: &str, value: &[u8]| Some((keyspace.parse_load(key)?, serde_json::from_slice(value).ok()?));
    Ok(snapshot.entries.iter().filter_map(|entry| load(&entry.key, &entry.value)).collect())
}

/// Adds loads to views of the cluster, for those who show them. Dropping it ends the task that reads the loads.
#[derive(Debug)]
pub struct LoadReader {
    loads: watch::Receiver<Arc<Loads>>,
    /// The newest view with loads, and the two that it was made of.
    newest: Mutex<Option<Merged>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Merged {
    view: Arc<ClusterView>,
    loads: Arc<Loads>,
    merged: Arc<ClusterView>,
}

// === impl LoadReader ===

impl LoadReader {
    /// Reads the loads of the cluster that `views` show, now and at intervals.
    pub(crate) fn start(store: SharedStore, keyspace: Keyspace, views: watch::Receiver<Arc<ClusterView>>) -> Self {
        let (publish, loads) = watch::channel(Arc::default());
        let task = tokio::spawn(async move {
            while !publish.is_closed() {
                match read_loads(&*store, &keyspace).await {
                    Ok(read) => drop(publish.send_replace(Arc::new(read))),
                    // The last ones stay, as the view does.
                    Err(error) => debug!(%error, "cannot read the stages' loads"),
                }
                let stages = views.borrow().stages.len();
                // Twice as often as they are written, so that none is shown long after it was.
                tokio::time::sleep(load_interval(stages) / 2).await;
            }
        });
        Self { loads, newest: Mutex::default(), task }
    }

    /// `view` with the newest loads. The same value for the same view and loads.
    pub(crate) fn add_to(&self, view: Arc<ClusterView>) -> Arc<ClusterView> {
        let loads = self.loads.borrow().clone();
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |known: &&Merged| Arc::ptr_eq(&known.view, &view) && Arc::ptr_eq(&known.loads, &loads);
        if let Some(known) = newest.as_ref().filter(is_known) {
            return known.merged.clone();
        }
        let merged = Arc::new(view.with_loads(&loads));
        *newest = Some(Merged { view, loads, merged: merged.clone() });
        merged
    }
}

impl Drop for LoadReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::testing::{name, stage};
    use crate::view::Versioned;

    #[test]
    fn a_thousand_stages_write_no_more_often_together_than_a_hundred() {
        for (stages, seconds) in [(0, 2), (3, 2), (100, 2), (200, 4), (1000, 20)] {
            assert_eq!(load_interval(stages), Duration::from_secs(seconds), "{stages}");
        }
    }

    #[tokio::test]
    async fn a_load_is_written_beside_its_record_and_unreadable_ones_are_left_out() {
        let store: SharedStore = Arc::new(MemoryStore::new());
        let keyspace = Keyspace::new(&"home".parse().unwrap());
        let lease = store.lease(Duration::from_secs(9)).await.unwrap();
        let load = StageLoad { tokens_total: 7, ..StageLoad::default() };
        let write = || store.commit(report_load(&keyspace, &name("a"), &load, lease.id()));
        write().await.unwrap();
        assert!(read_loads(&*store, &keyspace).await.unwrap().is_empty(), "without a record");
        let put = |key: String, value: &[u8]| Txn {
            compares: vec![],
            writes: vec![Write::Put { key, value: value.to_vec(), lease: None }],
        };
        let record = serde_json::to_vec(&stage(1)).unwrap();
        store.commit(put(keyspace.name(&Key::Stage(name("a"))), &record)).await.unwrap();
        store.commit(put(keyspace.load_name(&name("b")), b"{broken")).await.unwrap();
        write().await.unwrap();
        assert_eq!(read_loads(&*store, &keyspace).await.unwrap(), [(name("a"), load.clone())].into());

        let mut view = ClusterView::default();
        view.stages.insert(name("a"), Versioned { value: stage(1), mod_revision: 1 });
        let reader = LoadReader::start(store.clone(), keyspace, watch::channel(Arc::new(view.clone())).1);
        reader.loads.clone().changed().await.unwrap();
        let view = Arc::new(view);
        let shown = reader.add_to(view.clone());
        assert_eq!(shown.stages[&name("a")].value.load, load);
        assert!(Arc::ptr_eq(&shown, &reader.add_to(view)));
    }
}
