//! `baton stage`: one stage process.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use engine::membership::admit;
use engine::runner::Loader;
use engine::stage as stage_loop;
use engine::store::{EtcdStore, SharedStore};
use schema::Keyspace;
use stages::device::{self, DeviceSettings};
use stages::weights::{FileChanged, ModelFile, guard_against_truncation};
use tracing::info;

use super::RunError;
use super::model::agree;
use super::own_layers::OwnLayers;
use super::stop::Stop;
use crate::settings::StageSettings;

/// Interval of the checks that the model file is still the same. Its weights are mapped, so a stage computes with
/// whatever is written into the file, which is worse than no stage. A check takes a microsecond.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `baton stage` until the order to stop.
///
/// # Errors
/// [`RunError`] when it cannot start or cannot go on.
pub async fn stage(settings: StageSettings) -> Result<(), RunError> {
    let stop = Stop::listen(settings.follow_stdin)?;
    guard_against_truncation().map_err(|cause| RunError::Io { doing: "guard the mapped weights", cause })?;
    let store: SharedStore = Arc::new(EtcdStore::open(&settings.cluster.etcd).await?);
    let keyspace = Keyspace::new(&settings.cluster.cluster);
    let key = settings.member.cluster_key.as_ref().map(|key| key.of_cluster(&settings.cluster.cluster));
    admit(&store, &keyspace, key.as_ref()).await?;
    let own = OwnLayers::open(&store, &keyspace, &settings, &stop).await?;
    let served = match &own {
        Some(own) => own.served.clone(),
        None => match agree(&store, &keyspace, &settings.model, &settings.cache, &stop).await? {
            Some(served) => served,
            None => return Ok(()),
        },
    };
    info!(model = served.record.name, file = %served.file.path().display(), "the model is agreed on");
    let settings_of_device = DeviceSettings {
        device: settings.compute.device,
        threads: NonZeroUsize::new(settings.compute.threads).unwrap_or(NonZeroUsize::MIN),
        budget_bytes: settings.compute.memory_budget_bytes,
        has_weights: own.is_none(),
    };
    let mut loader: Arc<dyn Loader> = device::loader(served.file.clone(), settings_of_device)
        .map(Arc::from)
        .map_err(|cause| RunError::File { path: served.file.path().display().to_string(), cause: Box::new(cause) })?;
    if let Some(own) = &own {
        loader = own.loader(loader);
    }
    let member = settings.member;
    let listen = member.listen(key.clone())?;
    let loop_settings = stage_loop::StageSettings {
        keyspace,
        name: settings.name,
        listen,
        key,
        lease_ttl: member.lease_ttl,
        fingerprint: served.record.fingerprint.clone(),
    };
    let mut changed = None;
    // A signal drains the stage: it serves on until others have taken over its layers. It ends at once when the process
    // that started it has ended or closes its standard input, or when the model file has changed.
    let stop_now = async {
        tokio::select! {
            () = stop.stdin_closed() => {}
            found = file_changed(&served.file) => changed = Some(found),
        }
    };
    stage_loop::run(store, loop_settings, loader, stop.requested(), stop_now).await?;
    // A stage whose file has changed does not drain, because it has no use for the rest of the old contents. It has
    // revoked its lease all the same, so the others know at once that it is gone.
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
