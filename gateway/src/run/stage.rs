//! `baton stage`: one stage process.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use engine::link::Listen;
use engine::membership::agree_on_key;
use engine::runner::Loader;
use engine::stage as stage_loop;
use engine::store::{EtcdStore, SharedStore};
use schema::Keyspace;
use stages::device::{self, DeviceSettings};
use stages::weights::{FileChanged, ModelFile, guard_against_truncation};
use tracing::info;

use super::RunError;
use super::model::agree;
use super::stop::Stop;
use crate::settings::StageSettings;

/// Interval of the checks that the model file is still the same. A stage that computes with other weights is worse than
/// none, and a check takes a microsecond.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `baton stage` until the order to stop.
///
/// # Errors
/// [`RunError`] when it cannot start or cannot go on.
pub async fn stage(settings: StageSettings) -> Result<(), RunError> {
    let stop = Stop::listen(settings.follow_stdin)?;
    guard_against_truncation().map_err(|cause| RunError::Io { doing: "guard the mapped weights", cause })?;
    let store: SharedStore = Arc::new(EtcdStore::connect(&settings.cluster.etcd).await?);
    let keyspace = Keyspace::new(&settings.cluster.cluster);
    let key = settings.member.cluster_key.as_ref().map(|key| key.of_cluster(&settings.cluster.cluster));
    agree_on_key(&store, &keyspace, key.as_ref()).await?;
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
    let listen = Listen::new(host, None, key.clone())?;
    let loop_settings = stage_loop::StageSettings {
        keyspace,
        name: settings.name,
        listen,
        key,
        lease_ttl: member.lease_ttl,
        fingerprint: served.record.fingerprint.clone(),
    };
    let mut changed = None;
    let until = async {
        tokio::select! {
            () = stop.stdin_closed() => {}
            found = file_changed(&served.file) => changed = Some(found),
        }
    };
    stage_loop::run(store, loop_settings, loader, stop.requested(), until).await?;
    // If the file changed, the rest of its old contents is of no use. The stage has left the cluster in good order.
    changed.map_or(Ok(()), |found| Err(found.into()))
}

/// Resolves when the model file has changed.
async fn file_changed(file: &ModelFile) -> FileChanged {
    let mut checks = tokio::time::interval(POLL_INTERVAL);
    loop {
        checks.tick().await;
        if let Err(found) = file.check_unchanged() {
            return found;
        }
    }
}
