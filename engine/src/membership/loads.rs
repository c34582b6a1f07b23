//! The loads of stages and gateways: their recent work and use of resources. They change all the time and no decision
//! needs them, so they lie under a prefix of their own that nobody watches: stages write them at a rate that falls with
//! their number, and those who show them read them at intervals.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schema::record::{GatewayLoad, StageLoad};
use schema::{Key, Keyspace, StageName};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::debug;

use crate::limits::{LOADS_PER_SECOND_MAX, REPORT_EVERY};
use crate::store::{Compare, LeaseId, SharedStore, Store, StoreError, Txn, Write};
use crate::view::ClusterView;

/// The loads of a cluster's members.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loads {
    /// By stage.
    pub stages: BTreeMap<StageName, StageLoad>,
    /// By the gateway's slot.
    pub gateways: BTreeMap<u32, GatewayLoad>,
}

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

/// Writes the load of the gateway in `slot` under its lease, provided the store has its record.
pub(crate) fn report_gateway_load(keyspace: &Keyspace, slot: u32, load: &GatewayLoad, lease: LeaseId) -> Txn {
    let record = keyspace.name(&Key::Gateway(slot));
    let value = serde_json::to_vec(load).unwrap_or_default();
    let write = Write::Put { key: keyspace.gateway_load_name(slot), value, lease: Some(lease) };
    Txn { compares: vec![Compare::Present { key: record }], writes: vec![write] }
}

/// Reads the loads of a cluster's members. Those that cannot be read are left out.
///
/// # Errors
/// [`StoreError`] if the store does not answer.
pub async fn read_loads(store: &dyn Store, keyspace: &Keyspace) -> Result<Loads, StoreError> {
    let snapshot = store.read(keyspace.load_prefix()).await?;
    let mut loads = Loads::default();
    for entry in &snapshot.entries {
        if let Some(slot) = keyspace.parse_gateway_load(&entry.key) {
            loads.gateways.extend(serde_json::from_slice(&entry.value).ok().map(|load| (slot, load)));
        } else if let Some(stage) = keyspace.parse_load(&entry.key) {
            loads.stages.extend(serde_json::from_slice(&entry.value).ok().map(|load| (stage, load)));
        }
    }
    Ok(loads)
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
    use schema::record::{LinkReport, LinkState, Share};

    use super::*;
    use crate::store::MemoryStore;
    use crate::testing::{gateway, name, stage};
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
        assert_eq!(read_loads(&*store, &keyspace).await.unwrap(), Loads::default(), "without a record");
        let put = |key: String, value: &[u8]| Txn {
            compares: vec![],
            writes: vec![Write::Put { key, value: value.to_vec(), lease: None }],
        };
        let record = serde_json::to_vec(&stage(1)).unwrap();
        store.commit(put(keyspace.name(&Key::Stage(name("a"))), &record)).await.unwrap();
        store.commit(put(keyspace.load_name(&name("b")), b"{broken")).await.unwrap();
        write().await.unwrap();
        let links = vec![LinkReport {
            to: "tcp://a:1".to_owned(),
            address: "tcp://10.0.0.1:1".to_owned(),
            rtt_us: Some(90),
            megabits_per_second: None,
            state: LinkState::Used,
        }];
        let of_gateway = GatewayLoad { links: links.clone() };
        store.commit(put(keyspace.name(&Key::Gateway(3)), b"{}")).await.unwrap();
        store.commit(report_gateway_load(&keyspace, 3, &of_gateway, lease.id())).await.unwrap();
        let read = read_loads(&*store, &keyspace).await.unwrap();
        let expected = Loads { stages: [(name("a"), load.clone())].into(), gateways: [(3, of_gateway)].into() };
        assert_eq!(read, expected);

        let mut view = ClusterView::default();
        view.stages.insert(name("a"), Versioned { value: stage(1), mod_revision: 1 });
        view.gateways.insert(3, Versioned { value: gateway("1", Share::EMPTY), mod_revision: 1 });
        let reader = LoadReader::start(store.clone(), keyspace, watch::channel(Arc::new(view.clone())).1);
        reader.loads.clone().changed().await.unwrap();
        let view = Arc::new(view);
        let shown = reader.add_to(view.clone());
        assert_eq!(shown.stages[&name("a")].value.load, load);
        assert_eq!(shown.gateway_links, [(3, links)].into());
        assert!(Arc::ptr_eq(&shown, &reader.add_to(view)));
    }
}
