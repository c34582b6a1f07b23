//! The model of a machine that joined without naming one: its header and its own layers, from the machine that shares
//! the cluster.

use std::sync::Arc;
use std::time::Instant;

use engine::membership::Publisher;
use engine::runner::Loader;
use engine::store::SharedStore;
use schema::Keyspace;
use tracing::warn;

use super::RunError;
use super::model::{Served, cluster_model};
use super::stop::Stop;
use crate::error_chain::chain;
use crate::layers::{
    Activity, FetchingLoader, FoundSources, LayerClient, LayerFetch, LayerPort, LayerService, LayersError,
};
use crate::models;
use crate::settings::StageSettings;

/// A model whose layers are fetched as they are needed.
pub(super) struct OwnLayers {
    pub(super) served: Served,
    fetch: Arc<LayerFetch>,
    /// The port at which other machines get what was fetched.
    port: Option<LayerPort>,
    /// That of this machine's stage.
    activity: Arc<Activity>,
}

// === impl OwnLayers ===

impl OwnLayers {
    /// The model of the cluster that `publisher` follows, of which the header is fetched. `None` where it is to come
    /// whole: if this machine has or names it, if nobody serves layers, or if `stop` comes.
    #[expect(clippy::disallowed_methods, reason = "fetching waits for the network, not for a forward pass")]
    pub(super) async fn open(
        store: &SharedStore,
        keyspace: &Keyspace,
        publisher: &Publisher,
        settings: &StageSettings,
        stop: &Stop,
    ) -> Result<Option<Self>, RunError> {
        if settings.model.model.is_some() || !settings.model.fetches {
            return Ok(None);
        }
        let Some(agreed) = cluster_model(store, keyspace, stop).await? else { return Ok(None) };
        let record = agreed.record;
        let noted = models::noted_path(&record.fingerprint, &settings.cache);
        if noted.or_else(|| models::locate(&record.name, &settings.cache)).is_some() {
            return Ok(None);
        }
        let found = FoundSources::new(publisher.views(), settings.name.clone());
        let client = match LayerClient::new(&settings.cluster.etcd, found) {
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
        let activity = Arc::new(Activity::default());
        let port = serve(settings, fetch.clone(), activity.clone()).await;
        Ok(Some(Self { served: Served { file, record }, fetch, port, activity }))
    }

    /// `loader`, which finds its layers fetched.
    pub(super) fn loader(&self, loader: Arc<dyn Loader>) -> Arc<dyn Loader> {
        let endpoint = self.port.as_ref().map(|port| port.endpoint().to_owned());
        let (file, fetch, activity) = (self.served.file.clone(), self.fetch.clone(), self.activity.clone());
        Arc::new(FetchingLoader::new(loader, file, fetch, endpoint, activity))
    }
}

/// Serves what `fetch` has brought to other machines, at a low rate while `activity` shows requests. `None` if no port
/// can be opened, which costs this machine nothing.
async fn serve(settings: &StageSettings, fetch: Arc<LayerFetch>, activity: Arc<Activity>) -> Option<LayerPort> {
    let service = Arc::new(LayerService::default());
    service.offer_parts(fetch);
    service.slow_while(move || activity.is_active(Instant::now()));
    let host = settings.member.advertise.as_ref().map_or("127.0.0.1", |host| host.as_str());
    let opened = LayerPort::open(&settings.cluster.etcd, host, service).await;
    opened
        .inspect_err(|error| warn!(error = %chain(error), "other machines get no layers from this one"))
        .ok()
        .flatten()
}

/// The model is to come whole.
fn whole(error: &LayersError) -> Option<OwnLayers> {
    warn!(error = %chain(error), "this machine's own layers cannot be fetched alone: the whole model is needed");
    None
}
