//! Keeps a [`ClusterView`] true to the store and publishes it whole on every change.
//!
//! While the store is away, the last view stays published, marked unreachable. Nothing is guessed about changes
//! meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use schema::Keyspace;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::recall::Recall;
use super::view_pace::ViewPace;
use crate::limits::{ALARMS_EVERY, STORE_RETRY};
use crate::link::ClusterKey;
use crate::store::{Change, Entry, SharedStore, Snapshot, StoreError};
use crate::view::ClusterView;

/// Follows one cluster's keys. Stops when dropped.
#[derive(Debug)]
pub struct Publisher {
    views: watch::Receiver<Arc<ClusterView>>,
    task: JoinHandle<()>,
}

// === impl Publisher ===

impl Publisher {
    /// Reads the cluster once and follows it from there. `secret` is the key that its members prove to have.
    ///
    /// # Errors
    /// [`StoreError`] if the first read fails. Later failures only mark the view unreachable.
    pub async fn start(store: SharedStore, keyspace: Keyspace, secret: Option<ClusterKey>) -> Result<Self, StoreError> {
        let snapshot = store.read(keyspace.prefix()).await?;
        let mut mirror = Mirror::new(keyspace, secret, snapshot);
        let (publish, views) = watch::channel(Arc::new(mirror.view(Instant::now())));
        let (publish_alarms, alarms) = watch::channel(Vec::new());
        let alarm_store = store.clone();
        let polling_alarms = async move {
            loop {
                if let Ok(alarms) = alarm_store.alarms().await {
                    publish_alarms.send_if_modified(|last| (*last != alarms).then(|| *last = alarms).is_some());
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
                    mirror.replace(snapshot);
                    publish.send_replace(Arc::new(mirror.view(Instant::now())));
                }
            }
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = following => {}
                () = polling_alarms => {}
            }
        });
        Ok(Self { views, task })
    }

    /// A receiver of the views.
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
/// [`StoreError`] if the store does not answer.
pub async fn read_view(
    store: &SharedStore,
    keyspace: &Keyspace,
    secret: Option<&ClusterKey>,
) -> Result<ClusterView, StoreError> {
    let snapshot = store.read(keyspace.prefix()).await?;
    Ok(ClusterView::new(keyspace, secret, snapshot.revision.0, &snapshot.entries))
}

async fn follow(
    store: &SharedStore,
    mirror: &mut Mirror,
    publish: &watch::Sender<Arc<ClusterView>>,
    mut alarms: watch::Receiver<Vec<String>>,
) -> Result<std::convert::Infallible, StoreError> {
    let mut watch = store.watch(mirror.keyspace.prefix(), mirror.revision()).await?;
    let mut pace = ViewPace::default();
    loop {
        let recalled_until = mirror.recall.ends().map(tokio::time::Instant::from_std);
        tokio::select! {
            changes = watch.next() => {
                mirror.apply(changes?);
                // More changes may come until the next view is due.
                while !pace.is_due() && let Ok(changes) = tokio::time::timeout_at(pace.due(), watch.next()).await {
                    mirror.apply(changes?);
                }
            }
            () = until(recalled_until) => {}
            Ok(()) = alarms.changed() => {
                mirror.alarms.clone_from(&alarms.borrow_and_update());
                if mirror.alarms.is_empty() {
                    info!("the store is well again");
                } else {
                    warn!(alarms = ?mirror.alarms, "the store is not well; serving goes on");
                }
            }
        }
        let began = Instant::now();
        let view = mirror.view(began);
        log_complaints(&view, &publish.borrow());
        publish.send_replace(Arc::new(view));
        pace.built(began.elapsed());
    }
}

/// Logs the complaints of `view` that are not in `before`.
fn log_complaints(view: &ClusterView, before: &ClusterView) {
    for complaint in view.complaints.iter().filter(|complaint| !before.complaints.contains(complaint)) {
        warn!(key = complaint.key, reason = complaint.reason, "a value in the store cannot be used");
    }
}

/// Waits until `moment`. Waits for ever if there is none.
async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The entries below the cluster's prefix, as last received.
pub(crate) struct Mirror {
    keyspace: Keyspace,
    secret: Option<ClusterKey>,
    revision: u64,
    entries: BTreeMap<String, Entry>,
    alarms: Vec<String>,
    recall: Recall,
}

// === impl Mirror ===

impl Mirror {
    pub(crate) fn new(keyspace: Keyspace, secret: Option<ClusterKey>, snapshot: Snapshot) -> Self {
        let mut mirror = Self {
            keyspace,
            secret,
            revision: 0,
            entries: BTreeMap::new(),
            alarms: Vec::new(),
            recall: Recall::default(),
        };
        mirror.replace(snapshot);
        mirror
    }

    /// Replaces all entries by those of a whole read. Changes are followed from its revision on.
    pub(crate) fn replace(&mut self, snapshot: Snapshot) {
        self.revision = snapshot.revision.0;
        self.entries = snapshot.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
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

    /// The cluster as the store shows it `now`, completed by the records that the store has lost.
    pub(crate) fn view(&mut self, now: Instant) -> ClusterView {
        let view = self.raw();
        self.recall.complete(view, now)
    }

    /// The cluster as the store shows it, without the lost records.
    pub(crate) fn raw(&self) -> ClusterView {
        let view = ClusterView::new(&self.keyspace, self.secret.as_ref(), self.revision, self.entries.values());
        ClusterView { store_alarms: self.alarms.clone(), ..view }
    }
}
