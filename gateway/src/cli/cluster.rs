//! One look at a cluster's store.

use engine::store::{EtcdStore, Store, StoreError};
use engine::view::ClusterView;
use schema::Keyspace;

use crate::settings::ClusterSettings;

/// Reads the cluster once.
pub(super) async fn look(settings: &ClusterSettings) -> Result<ClusterView, StoreError> {
    let store = EtcdStore::connect(&settings.etcd).await?;
    read(&store, &Keyspace::new(&settings.cluster)).await
}

/// Reads the cluster of `keyspace` from `store`.
pub(super) async fn read(store: &EtcdStore, keyspace: &Keyspace) -> Result<ClusterView, StoreError> {
    let snapshot = store.read(keyspace.prefix()).await?;
    let entries =
        snapshot.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_slice(), entry.mod_revision.0));
    Ok(ClusterView::new(keyspace, snapshot.revision.0, entries))
}
