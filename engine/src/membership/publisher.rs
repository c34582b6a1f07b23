//! Keeps a [`ClusterView`] true to the store and publishes it whole on every change.
//!
//! While the store is away the last view stands, marked unreachable; nothing is guessed about what happens meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::Keyspace;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::limits::{ALARMS_EVERY, STORE_RETRY};
use crate::store::{Change, Entry, SharedStore, Snapshot, StoreError};
use crate::view::ClusterView;

/// Follows one cluster's keys; stops when dropped.
#[derive(Debug)]
pub struct Publisher {
    views: watch::Receiver<Arc<ClusterView>>,
    task: JoinHandle<()>,
}

// === impl Publisher ===

impl Publisher {
    /// Reads the cluster once and follows it from there.
    ///
    /// # Errors
    /// [`StoreError`] when the first read fails; later failures only mark the view unreachable.
    pub async fn start(store: SharedStore, keyspace: Keyspace) -> Result<Self, StoreError> {
        let snapshot = store.read(keyspace.prefix()).await?;
        let mut mirror = Mirror::new(keyspace, snapshot);
        let (publish, views) = watch::channel(Arc::new(mirror.view()));
        let (said, alarms) = watch::channel(Vec::new());
        let asked = store.clone();
        let asking = async move {
            loop {
                if let Ok(alarms) = asked.alarms().await {
                    said.send_if_modified(|last| (*last != alarms).then(|| *last = alarms).is_some());
                }
                tokio::time::sleep(ALARMS_EVERY).await;
            }
        };
        let following = async move {
            let mut is_away = false;
            while !publish.is_closed() {
                let Err(error) = follow(&store, &mut mirror, &publish, alarms.clone()).await;
                if !matches!(error, StoreError::Compacted { .. }) {
                    if !std::mem::replace(&mut is_away, true) {
                        warn!(%error, "the store is away; going on with the last known placement");
                    }
                    publish.send_modify(|view| *view = Arc::new(ClusterView { reachable: false, ..(**view).clone() }));
                    tokio::time::sleep(STORE_RETRY).await;
                }
                if let Ok(snapshot) = store.read(mirror.keyspace.prefix()).await {
                    is_away = false;
                    info!(revision = snapshot.revision.0, "the store answers");
                    mirror = Mirror { alarms: mirror.alarms, ..Mirror::new(mirror.keyspace, snapshot) };
                    publish.send_replace(Arc::new(mirror.view()));
                }
            }
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = following => {}
                () = asking => {}
            }
        });
        Ok(Self { views, task })
    }

    /// The views as they come.
    pub fn views(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.views.clone()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads the cluster once.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub async fn read_view(store: &SharedStore, keyspace: &Keyspace) -> Result<ClusterView, StoreError> {
    let snapshot = store.read(keyspace.prefix()).await?;
    Ok(Mirror::new(keyspace.clone(), snapshot).view())
}

async fn follow(
    store: &SharedStore,
    mirror: &mut Mirror,
    publish: &watch::Sender<Arc<ClusterView>>,
    mut alarms: watch::Receiver<Vec<String>>,
) -> Result<std::convert::Infallible, StoreError> {
    let mut watch = store.watch(mirror.keyspace.prefix(), mirror.revision()).await?;
    loop {
        tokio::select! {
            changes = watch.next() => mirror.apply(changes?),
            Ok(()) = alarms.changed() => {
                mirror.alarms.clone_from(&alarms.borrow_and_update());
                if mirror.alarms.is_empty() {
                    info!("the store is well again");
                } else {
                    warn!(alarms = ?mirror.alarms, "the store is not well; serving goes on");
                }
            }
        }
        publish.send_replace(Arc::new(mirror.view()));
    }
}

/// The entries below the cluster's prefix as last heard.
pub(crate) struct Mirror {
    keyspace: Keyspace,
    revision: u64,
    entries: BTreeMap<String, Entry>,
    alarms: Vec<String>,
}

// === impl Mirror ===

impl Mirror {
    pub(crate) fn new(keyspace: Keyspace, snapshot: Snapshot) -> Self {
        let entries = snapshot.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        Self { keyspace, revision: snapshot.revision.0, entries, alarms: Vec::new() }
    }

    fn revision(&self) -> crate::store::Revision {
        crate::store::Revision(self.revision)
    }

    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(entry) => {
                    self.revision = self.revision.max(entry.mod_revision.0);
                    self.entries.insert(entry.key.clone(), entry);
                }
                Change::Deleted { key, revision } => {
                    self.revision = self.revision.max(revision.0);
                    self.entries.remove(&key);
                }
            }
        }
    }

    pub(crate) fn view(&self) -> ClusterView {
        let entries = self.entries.values();
        let entries = entries.map(|entry| (entry.key.as_str(), entry.value.as_slice(), entry.mod_revision.0));
        let view = ClusterView::new(&self.keyspace, self.revision, entries);
        ClusterView { store_alarms: self.alarms.clone(), ..view }
    }
}
