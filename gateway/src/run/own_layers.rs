//! The model of a machine that joined without naming one: its header and its own layers, from the machine that shares
//! the cluster.

use std::sync::Arc;

use engine::runner::Loader;
use engine::store::SharedStore;
use schema::Keyspace;
use tracing::warn;

use super::RunError;
use super::model::{Served, cluster_model};
use super::stop::Stop;
use crate::error_chain::chain;
use crate::layers::{FetchingLoader, LayerClient, LayerFetch, LayersError};
use crate::models;
use crate::settings::StageSettings;

/// A model whose layers are fetched as they are needed.
pub(super) struct OwnLayers {
    pub(super) served: Served,
    fetch: Arc<LayerFetch>,
}

// === impl OwnLayers ===

impl OwnLayers {
    /// The cluster's model, of which the header is fetched. `None` where it is to come whole: if this machine has or
    /// names it, if nobody serves layers, or if `stop` comes.
    #[expect(clippy::disallowed_methods, reason = "fetching waits for the network, not for a forward pass")]
    pub(super) async fn open(
        store: &SharedStore,
        keyspace: &Keyspace,
        settings: &StageSettings,
        stop: &Stop,
    ) -> Result<Option<Self>, RunError> {
        if settings.model.model.is_some() || !settings.model.fetches {
            return Ok(None);
        }
        let Some(agreed) = cluster_model(store, keyspace, stop).await? else { return Ok(None) };
        let record = agreed.record;
        if models::locate(&record.name, &settings.cache).is_some() {
            return Ok(None);
        }
        let client = match LayerClient::new(&settings.cluster.etcd) {
            Ok(Some(client)) => client,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(whole(&error)),
        };
        let (model, cache, flag) = (record.clone(), settings.cache.clone(), stop.flag());
        let opening = tokio::task::spawn_blocking(move || {
            LayerFetch::open(client, (&model.name, &model.fingerprint), &cache, flag)
        });
        let opened = tokio::select! {
            () = stop.requested() => return Ok(None),
            opened = opening => opened.map_err(|cause| RunError::Io { doing: "fetch layers", cause: cause.into() })?,
        };
        let fetch = match opened {
            Ok(fetch) => Arc::new(fetch),
            Err(error) => return Ok(whole(&error)),
        };
        let file = fetch
            .file()
            .map_err(|cause| RunError::File { path: fetch.path().display().to_string(), cause: Box::new(cause) })?;
        Ok(Some(Self { served: Served { file, record }, fetch }))
    }

    /// `loader`, which finds its layers fetched.
    pub(super) fn loader(self, loader: Arc<dyn Loader>) -> Arc<dyn Loader> {
        Arc::new(FetchingLoader::new(loader, self.served.file, self.fetch))
    }
}

/// The model is to come whole.
fn whole(error: &LayersError) -> Option<OwnLayers> {
    warn!(error = %chain(error), "this machine's own layers cannot be fetched alone: the whole model is needed");
    None
}
