//! Reads a cluster's records from its store.

use engine::link::ClusterKey;
use engine::membership::read_loads;
use engine::store::{EtcdStore, Store, StoreError};
use engine::view::ClusterView;
use schema::Keyspace;

use crate::settings::ClusterSettings;

/// Connects to the store and reads the cluster once.
pub(super) async fn read_once(settings: &ClusterSettings) -> Result<ClusterView, StoreError> {
    let store = EtcdStore::open(&settings.etcd).await?;
    read(&store, &Keyspace::new(&settings.cluster), settings.client_key.as_ref()).await
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
