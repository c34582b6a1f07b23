//! Agreeing on the cluster's model: the first process that names one writes it, the others must have the same file.

use std::path::{Path, PathBuf};

use engine::membership::{read_view, write_model};
use engine::store::SharedStore;
use schema::Keyspace;
use schema::record::ModelRecord;
use stages::weights::ModelFile;
use tracing::info;

use super::RunError;
use super::stop::Stop;
use crate::models::{self, Cache, Console};
use crate::settings::ModelSettings;

/// How often a process that names no model looks whether another has.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(200);

/// The model that the cluster serves, and this machine's file of it.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) file: ModelFile,
    pub(super) record: ModelRecord,
}

/// The file of `model` (the default when `None`), fetched if need be; `None` when told to stop meanwhile.
#[expect(clippy::disallowed_methods, reason = "fetching waits for the network, not for a forward pass")]
pub(super) async fn fetch(model: Option<String>, cache: &Cache, stop: &Stop) -> Result<Option<PathBuf>, RunError> {
    let (cache, flag) = (cache.clone(), stop.flag());
    let fetching =
        tokio::task::spawn_blocking(move || models::resolve(model.as_deref(), &cache, &mut Console::stoppable(flag)));
    tokio::select! {
        () = stop.told() => Ok(None),
        fetched = fetching => match fetched {
            Ok(path) => Ok(Some(path?)),
            Err(cause) => Err(RunError::Io { doing: "fetch the model", cause: cause.into() }),
        },
    }
}

/// Agrees with the cluster on its model. `None` when told to stop before there was one.
pub(super) async fn agree(
    store: &SharedStore,
    keyspace: &Keyspace,
    said: &ModelSettings,
    cache: &Cache,
    stop: &Stop,
) -> Result<Option<Served>, RunError> {
    if let Some(model) = said.model.clone() {
        let Some(path) = fetch(Some(model), cache, stop).await? else { return Ok(None) };
        let file = open(&path)?;
        let record = stages::model_record(&file, said.kv_tokens, said.stages_min)
            .map_err(|cause| RunError::File { path: path.display().to_string(), cause: Box::new(cause) })?;
        store.commit(write_model(keyspace, &record)).await?;
        let Some(record) = cluster_model(store, keyspace, stop).await? else { return Ok(None) };
        return check(file, record).map(Some);
    }
    let Some(record) = cluster_model(store, keyspace, stop).await? else { return Ok(None) };
    let path = models::locate(&record.name, cache).ok_or_else(|| RunError::NotHere { name: record.name.clone() })?;
    check(open(&path)?, record).map(Some)
}

fn open(path: &Path) -> Result<ModelFile, RunError> {
    ModelFile::open(path).map_err(|cause| RunError::File { path: path.display().to_string(), cause: Box::new(cause) })
}

/// The cluster's model, waiting for it as long as there is none.
async fn cluster_model(store: &SharedStore, keyspace: &Keyspace, stop: &Stop) -> Result<Option<ModelRecord>, RunError> {
    let mut said = false;
    loop {
        if let Some(model) = read_view(store, keyspace).await?.model {
            return Ok(Some(model.value));
        }
        if !said {
            info!("the cluster has no model yet: waiting for a process that names one");
            said = true;
        }
        tokio::select! {
            () = stop.told() => return Ok(None),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn check(file: ModelFile, record: ModelRecord) -> Result<Served, RunError> {
    if *file.fingerprint() == record.fingerprint {
        return Ok(Served { file, record });
    }
    Err(RunError::OtherModel {
        name: record.name,
        expected: record.fingerprint,
        path: file.path().display().to_string(),
        found: file.fingerprint().clone(),
    })
}
