//! `baton gateway`: the HTTP door and the head of the pipeline, without stages.

use std::sync::Arc;

use engine::store::{EtcdStore, SharedStore};
use schema::Keyspace;
use tracing::info;

use super::RunError;
use super::door::{OpenDoor, listen};
use super::model::agree;
use super::stop::Stop;
use crate::settings::GatewaySettings;

/// Runs `baton gateway` until it is told to stop.
///
/// # Errors
/// [`RunError`] says why it could not start or go on.
pub async fn gateway(settings: GatewaySettings) -> Result<(), RunError> {
    let stop = Stop::listen(false)?;
    let listener = listen(settings.listen).await?;
    let store: SharedStore = Arc::new(EtcdStore::connect(&settings.cluster.etcd).await?);
    let keyspace = Keyspace::new(&settings.cluster.cluster);
    let Some(served) = agree(&store, &keyspace, &settings.model, &settings.cache, &stop).await? else { return Ok(()) };
    let deadline = settings.request_deadline;
    let door = OpenDoor::open(store, keyspace, &served, &settings.member, listener, deadline, &stop).await?;
    info!(model = served.record.name, "the gateway is open");
    stop.told().await;
    door.closed().await;
    Ok(())
}
