//! `baton gateway`: the HTTP server and the gateway's core, without stages.

use std::sync::Arc;
use std::time::Duration;

use engine::membership::{admit, read_rollout};
use engine::store::{EtcdStore, SharedStore};
use schema::Keyspace;
use tracing::info;

use super::RunError;
use super::gateway_server::{GatewayParts, GatewayServer, listen};
use super::model::agree;
use super::stop::Stop;
use crate::settings::GatewaySettings;

/// Time for running requests to finish after SIGTERM: service managers wait 30 s before they kill.
const DRAIN_TIME: Duration = Duration::from_secs(25);

/// Runs `baton gateway` until the order to stop.
///
/// # Errors
/// [`RunError`] when it cannot start or cannot go on.
pub async fn gateway(settings: GatewaySettings) -> Result<(), RunError> {
    let stop = Stop::listen(false)?;
    let listener = listen(&settings.http, &settings.member).await?;
    let store: SharedStore = Arc::new(EtcdStore::open(&settings.cluster.etcd).await?);
    let cluster = Keyspace::new(&settings.cluster.cluster);
    let keyspace = cluster.beside(read_rollout(&*store, &cluster).await?.rollout.serving());
    let key = settings.member.cluster_key.as_ref().map(|key| key.of_cluster(&settings.cluster.cluster));
    admit(&store, &keyspace, key.as_ref()).await?;
    let Some(served) = agree(&store, &keyspace, &settings.model, &settings.cache, &stop).await? else { return Ok(()) };
    let GatewaySettings { member, http, .. } = &settings;
    let gateway = GatewayParts {
        member,
        http,
        drain_time: DRAIN_TIME,
        alone: false,
        clusters: http.clusters.clone().unwrap_or_default(),
        cache: &settings.cache,
        state: settings.state.as_deref(),
    };
    let opening = GatewayServer::open(store, &keyspace, &served, gateway, listener, &stop);
    let mut server = tokio::select! {
        () = stop.requested() => return Ok(()),
        opened = opening => opened?,
    };
    info!(model = served.record.name, "the gateway is open");
    let outcome = tokio::select! {
        () = stop.requested() => Ok(()),
        () = server.core_ended() => Err(RunError::CoreEnded),
    };
    stop.request();
    server.closed().await;
    outcome
}
