//! Agreement on the cluster's model: the first process that names one writes it to the store, and the others must have
//! the same file.

use std::path::{Path, PathBuf};

use engine::membership::{read_view, replace_model, write_model};
use engine::runner::KV_BLOCK_TOKENS;
use engine::store::{Committed, SharedStore};
use schema::record::{KvRoom, ModelRecord};
use schema::{Key, Keyspace};
use stages::RecordError;
use stages::weights::ModelFile;
use tracing::{info, warn};

use super::RunError;
use super::live_members::LiveMembers;
use super::other_model::OtherModel;
use super::stop::Stop;
use crate::models::{self, Cache, Console, file_use};
use crate::settings::{KV_TOKENS_MAX, KvSize, ModelSettings, defaults};

/// Interval at which a process that names no model checks for one named by another.
const POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(200);

/// The model that the cluster serves, and this machine's file of it.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) file: ModelFile,
    pub(super) record: ModelRecord,
}

/// The file of `model` (the default model when `None`), fetched if necessary. `None` if `stop` comes meanwhile.
#[expect(clippy::disallowed_methods, reason = "fetching waits for the network, not for a forward pass")]
pub(super) async fn fetch(model: Option<String>, cache: &Cache, stop: &Stop) -> Result<Option<PathBuf>, RunError> {
    let (cache, flag) = (cache.clone(), stop.flag());
    let fetching =
        tokio::task::spawn_blocking(move || models::resolve(model.as_deref(), &cache, &mut Console::stoppable(flag)));
    tokio::select! {
        () = stop.requested() => Ok(None),
        fetched = fetching => match fetched {
            Ok(path) => Ok(Some(path?)),
            Err(cause) => Err(RunError::Io { doing: "fetch the model", cause: cause.into() }),
        },
    }
}

/// Agrees with the cluster on its model. `None` if `stop` comes before there is one.
pub(super) async fn agree(
    store: &SharedStore,
    keyspace: &Keyspace,
    settings: &ModelSettings,
    cache: &Cache,
    stop: &Stop,
) -> Result<Option<Served>, RunError> {
    if let Some(model) = settings.model.clone() {
        let Some(path) = fetch(Some(model), cache, stop).await? else { return Ok(None) };
        let file = open(&path)?;
        let record = describe(&file, settings)?;
        offer(store, keyspace, &record).await?;
        let Some(agreed) = cluster_model(store, keyspace, stop).await? else { return Ok(None) };
        return check(file, keyspace, agreed).map(Some);
    }
    let Some(agreed) = cluster_model(store, keyspace, stop).await? else { return Ok(None) };
    let record = &agreed.record;
    let here = models::noted_path(&record.fingerprint, cache).or_else(|| models::locate(&record.name, cache));
    let path = match (here, &record.source) {
        (Some(path), _) => path,
        // Only what any machine can fetch: a member of the cluster must not name a file of this machine.
        (None, Some(source)) if settings.fetches && models::is_fetchable(source) => {
            info!(model = record.name, source, "the model is not here yet");
            let Some(path) = fetch(Some(source.clone()), cache, stop).await? else { return Ok(None) };
            path
        }
        (None, _) => return Err(RunError::NotHere { name: record.name.clone() }),
    };
    check(open(&path)?, keyspace, agreed).map(Some)
}

/// Writes `record` if the cluster has no model, or has another one and no live member. Whether or not this process was
/// first, the record that counts is then the one in the store.
async fn offer(store: &SharedStore, keyspace: &Keyspace, record: &ModelRecord) -> Result<(), RunError> {
    // Without the cluster key, so that whoever is there counts as alive, with a proof or without.
    let view = read_view(store, keyspace, None).await?;
    let other = view.model.as_ref().filter(|model| model.value.fingerprint != record.fingerprint);
    let Some(other) = other.filter(|_| LiveMembers::new(&view).is_empty()) else {
        // An unusable value at the key is overwritten.
        store.commit(write_model(keyspace, record, view.unusable_revision(&Key::Model))).await?;
        return Ok(());
    };
    let replaced = store.commit(replace_model(keyspace, record, other.mod_revision)).await?;
    if let Committed::Applied { .. } = replaced {
        let (before, now) = (&other.value.name, &record.name);
        warn!(before, now, "no member of this cluster is alive: it serves another model from now on");
    }
    Ok(())
}

/// The cluster's model, and the members that were alive when it was read.
pub(super) struct Agreed {
    pub(super) record: ModelRecord,
    members: LiveMembers,
}

/// The record of `file` for the cluster, with the configured room for keys and values.
pub(super) fn describe(file: &ModelFile, settings: &ModelSettings) -> Result<ModelRecord, RunError> {
    let recorded = |record: Result<ModelRecord, RecordError>| {
        let path = || file.path().display().to_string();
        let record = record.map(|record| ModelRecord { source: settings.source.clone(), ..record });
        record.map_err(|cause| RunError::File { path: path(), cause: Box::new(cause) })
    };
    let room = |tokens| KvRoom { tokens, kv_type: settings.kv_type };
    let with_room = |tokens| recorded(stages::model_record(file, room(tokens), settings.stages_min));
    match settings.kv {
        KvSize::Memory => recorded(stages::growing_record(file, room(defaults::KV_TOKENS), settings.stages_min)),
        KvSize::Tokens(tokens) => with_room(tokens),
        // Bytes follow from the model and `kv_type`, so a record with any number of tokens tells them.
        KvSize::Bytes(bytes) => with_room(tokens_of(bytes, &with_room(KV_BLOCK_TOKENS)?)?),
    }
}

/// Number of tokens, in whole blocks, whose keys and values fit into `bytes`. `one_block` is the record with room for
/// one block.
fn tokens_of(bytes: u64, one_block: &ModelRecord) -> Result<u32, RunError> {
    match one_block.kv_tokens_within(bytes, KV_TOKENS_MAX) {
        0 => Err(RunError::KvMemory { found_bytes: bytes, block_bytes: one_block.kv_bytes() }),
        tokens => Ok(tokens),
    }
}

pub(super) fn open(path: &Path) -> Result<ModelFile, RunError> {
    let opened = ModelFile::open(path);
    let file = opened.map_err(|cause| RunError::File { path: path.display().to_string(), cause: Box::new(cause) })?;
    file_use::hold(&file);
    Ok(file)
}

/// The cluster's model. Waits until there is one. `None` if `stop` comes meanwhile.
pub(super) async fn cluster_model(
    store: &SharedStore,
    keyspace: &Keyspace,
    stop: &Stop,
) -> Result<Option<Agreed>, RunError> {
    let mut logged = false;
    loop {
        let view = read_view(store, keyspace, None).await?;
        let members = LiveMembers::new(&view);
        if let Some(model) = view.model {
            return Ok(Some(Agreed { record: model.value, members }));
        }
        if !logged {
            let prefix = keyspace.prefix();
            info!(
                prefix,
                "the cluster has no model yet: waiting for a process that names one (is the cluster's name right?)"
            );
            logged = true;
        }
        tokio::select! {
            () = stop.requested() => return Ok(None),
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
    }
}

/// Pairs this machine's `file` with the cluster's record, whose fingerprint it must have.
fn check(file: ModelFile, keyspace: &Keyspace, agreed: Agreed) -> Result<Served, RunError> {
    let Agreed { record, members } = agreed;
    if *file.fingerprint() == record.fingerprint {
        return Ok(Served { file, record });
    }
    let other = OtherModel {
        cluster: keyspace.cluster().to_string(),
        members,
        name: record.name,
        expected: record.fingerprint,
        path: file.path().display().to_string(),
        found: file.fingerprint().clone(),
    };
    Err(Box::new(other).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_keys_and_values_is_whole_blocks_of_tokens() {
        // At 100 bytes a token, a block of 32 tokens takes 3200 bytes.
        let one_block = ModelRecord {
            kv_bytes_per_token_layer: 50,
            kv_tokens: KV_BLOCK_TOKENS,
            ..ModelRecord::new("m", vec![1; 2])
        };
        for (bytes, tokens) in [(3200, 32), (6399, 32), (6400, 64), (u64::MAX, KV_TOKENS_MAX)] {
            assert_eq!(tokens_of(bytes, &one_block).unwrap(), tokens, "{bytes}");
        }
        let error = tokens_of(3199, &one_block).unwrap_err().to_string();
        assert_eq!(error, "kv_memory is 3199 bytes: expected at least the 3200 bytes of one block of 32 tokens");
    }
}
