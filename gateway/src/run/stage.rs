//! `baton stage`: one stage process.

use std::num::NonZeroUsize;
use std::sync::Arc;

use engine::link::Listen;
use engine::runner::Loader;
use engine::stage as stage_loop;
use engine::store::{EtcdStore, SharedStore};
use schema::Keyspace;
use stages::device::{self, DeviceSettings};
use stages::weights::guard_against_truncation;
use tracing::info;

use super::RunError;
use super::model::agree;
use super::stop::Stop;
use crate::settings::StageSettings;

/// Runs `baton stage` until it is told to stop.
///
/// # Errors
/// [`RunError`] says why it could not start or go on.
pub async fn stage(settings: StageSettings) -> Result<(), RunError> {
    let stop = Stop::listen(settings.follow_stdin)?;
    guard_against_truncation().map_err(|cause| RunError::Io { doing: "guard the mapped weights", cause })?;
    let store: SharedStore = Arc::new(EtcdStore::connect(&settings.cluster.etcd).await?);
    let keyspace = Keyspace::new(&settings.cluster.cluster);
    let Some(served) = agree(&store, &keyspace, &settings.model, &settings.cache, &stop).await? else { return Ok(()) };
    info!(model = served.record.name, file = %served.file.path().display(), "the model is agreed on");
    let settings_of_device = DeviceSettings {
        device: settings.compute.device,
        threads: NonZeroUsize::new(settings.compute.threads).unwrap_or(NonZeroUsize::MIN),
        budget_bytes: settings.compute.memory_budget_bytes,
    };
    let loader: Arc<dyn Loader> = device::loader(served.file.clone(), settings_of_device)
        .map(Arc::from)
        .map_err(|cause| RunError::File { path: served.file.path().display().to_string(), cause: Box::new(cause) })?;
    let member = settings.member;
    let host = member.advertise.as_ref().map(|host| host.as_str().to_owned());
    let listen = Listen::new(host, None, member.cluster_key.clone())?;
    let told = stage_loop::StageSettings {
        keyspace,
        name: settings.name,
        listen,
        key: member.cluster_key,
        lease_ttl: member.lease_ttl,
        fingerprint: served.record.fingerprint.clone(),
    };
    Ok(stage_loop::run(store, told, loader, stop.told()).await?)
}
