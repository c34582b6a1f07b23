//! Reads a cluster's records from its store: those of the deployment that requests get.

use engine::link::ClusterKey;
use engine::membership::{read_loads, read_rollout};
use engine::store::{EtcdStore, Store, StoreError};
use engine::view::ClusterView;
use schema::{ClusterName, Keyspace};

use crate::settings::ClusterSettings;

/// Connects to the store and reads the cluster once.
pub(super) async fn read_once(settings: &ClusterSettings) -> Result<ClusterView, StoreError> {
    let store = EtcdStore::open(&settings.etcd).await?;
    read(&store, &serving(&store, &settings.cluster).await?, settings.client_key.as_ref()).await
}

/// The keys of the deployment of `cluster` that requests get.
pub(super) async fn serving(store: &EtcdStore, cluster: &ClusterName) -> Result<Keyspace, StoreError> {
    let keyspace = Keyspace::new(cluster);
    Ok(keyspace.beside(read_rollout(store, &keyspace).await?.rollout.serving()))
}

/// Reads the cluster of `keyspace` from `store`.
pub(super) async fn read(
    store: &EtcdStore,
    keyspace: &Keyspace,
    secret: Option<&ClusterKey>,
) -> Result<ClusterView, StoreError> {
    let snapshot = store.read(keyspace.prefix()).await?;
    let view = ClusterView::new(keyspace, None, snapshot.revision.0, &snapshot.entries);
    // Without the cluster key, or in a cluster that has no key, records are accepted without a check of their proofs.
    let view = match secret.filter(|_| view.key_mark.is_some()) {
        Some(secret) => ClusterView::new(keyspace, Some(secret), view.revision, &snapshot.entries),
        None => view,
    };
    // A user who may not read the loads still sees the cluster, without them.
    Ok(view.with_loads(&read_loads(store, keyspace).await.unwrap_or_default()))
}
