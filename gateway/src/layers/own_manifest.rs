//! The manifest of this machine's whole model: made once, when it is first asked for, and kept in the cache for as long
//! as the files are the same by length and time of modification.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use stages::weights::ModelFile;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::folder::PartialModel;
use super::limits::{HASHING_ANSWER_WAIT, MANIFEST_BYTES_MAX};
use super::manifest::ChunkManifest;
use super::protocol::LayerRefusal;
use crate::models::Cache;
use crate::new_file;

/// The manifest, or how far its making is.
pub(super) struct OwnManifest {
    file: ModelFile,
    /// The file in which it is kept.
    kept_at: PathBuf,
    state: watch::Sender<State>,
    hashed_bytes: AtomicU64,
}

/// The stages of its making.
enum State {
    Absent,
    Hashing,
    /// As it is sent.
    Made(Arc<Vec<u8>>),
    /// The reason for which it could not be made, for those who wait. It is tried again for others.
    Failed(String),
}

/// A manifest as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The first of the files.
    path: PathBuf,
    files: Vec<Stamp>,
    manifest: ChunkManifest,
}

/// The state of a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    modified_ns: u64,
}

// === impl OwnManifest ===

impl OwnManifest {
    /// The manifest of `file`, kept in `cache`.
    pub(super) fn new(file: ModelFile, cache: &Cache) -> Self {
        let kept_at = kept_at(cache, &file);
        Self { file, kept_at, state: watch::Sender::new(State::Absent), hashed_bytes: AtomicU64::new(0) }
    }

    /// The manifest as it is sent. One that asks while it is made waits, or is told how far it is if it `polls`.
    ///
    /// # Errors
    /// [`LayerRefusal::Hashing`], or [`LayerRefusal::Read`] if a file cannot be read.
    pub(super) async fn get(self: &Arc<Self>, polls: bool) -> Result<Arc<Vec<u8>>, LayerRefusal> {
        let mut states = self.state.subscribe();
        self.start();
        let made = states.wait_for(|state| matches!(state, State::Made(_) | State::Failed(_)));
        let made = if polls {
            timeout(HASHING_ANSWER_WAIT, made).await.map_err(|_| LayerRefusal::Hashing { percent: self.percent() })?
        } else {
            made.await
        };
        match &*made.map_err(|error| LayerRefusal::Read(error.to_string()))? {
            State::Made(manifest) => Ok(manifest.clone()),
            State::Failed(reason) => Err(LayerRefusal::Read(reason.clone())),
            State::Absent | State::Hashing => Err(LayerRefusal::NotYet),
        }
    }

    /// Begins to make it, unless it is being made or is there. It is made to its end, even if nobody waits any more.
    #[expect(clippy::disallowed_methods, reason = "reads a file; no forward pass")]
    fn start(self: &Arc<Self>) {
        let begins = self.state.send_if_modified(|state| {
            let begins = matches!(state, State::Absent | State::Failed(_));
            if begins {
                *state = State::Hashing;
            }
            begins
        });
        if begins {
            let own = self.clone();
            tokio::task::spawn_blocking(move || {
                let made = own.make().and_then(|manifest| Ok(serde_json::to_vec(&manifest)?));
                let made = made.map_or_else(|error| State::Failed(error.to_string()), |text| State::Made(text.into()));
                own.state.send_replace(made);
            });
        }
    }

    fn make(&self) -> io::Result<ChunkManifest> {
        let started = Instant::now();
        if let Some(manifest) = kept(&self.kept_at, &self.file) {
            return Ok(manifest);
        }
        self.hashed_bytes.store(0, Ordering::Relaxed);
        let manifest = ChunkManifest::compute(&self.file, &mut |bytes| {
            self.hashed_bytes.fetch_add(bytes, Ordering::Relaxed);
        })?;
        self.file.check_unchanged().map_err(|changed| io::Error::other(changed.to_string()))?;
        let (model, bytes) = (self.file.name(), self.file.bytes());
        info!(model, bytes, took = ?started.elapsed(), "hashed the model's chunks");
        // Without it, the files are hashed again after the next start.
        if let Err(error) = keep(&self.kept_at, &self.file, &manifest) {
            warn!(path = %self.kept_at.display(), %error, "the manifest cannot be kept");
        }
        Ok(manifest)
    }

    fn percent(&self) -> u8 {
        let (hashed, bytes) = (self.hashed_bytes.load(Ordering::Relaxed), self.file.bytes().max(1));
        (hashed.min(bytes).saturating_mul(100) / bytes) as u8
    }
}

/// The place of the manifest of a model.
pub(super) fn kept_at(cache: &Cache, file: &ModelFile) -> PathBuf {
    cache.manifests_folder().join(format!("{}.json", PartialModel::name(file.fingerprint())))
}

/// The manifest that was kept for `file` as it is now.
pub(super) fn kept(path: &Path, file: &ModelFile) -> Option<ChunkManifest> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).ok()?;
    let kept = serde_json::from_slice::<Kept>(&text);
    let kept = kept.inspect_err(|error| warn!(path = %path.display(), %error, "hashing anew")).ok()?;
    let is_same = kept.path == file.path() && kept.files == stamps(file).ok()?;
    (is_same && kept.manifest.fingerprint() == file.fingerprint()).then_some(kept.manifest)
}

fn keep(path: &Path, file: &ModelFile, manifest: &ChunkManifest) -> io::Result<()> {
    let kept = Kept { path: file.path().to_owned(), files: stamps(file)?, manifest: manifest.clone() };
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    new_file::written(folder, &serde_json::to_vec(&kept)?)?.persist(path)?;
    Ok(())
}

/// The states of the files now.
fn stamps(file: &ModelFile) -> io::Result<Vec<Stamp>> {
    let stamp = |file: &File| {
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Stamp { bytes: metadata.len(), modified_ns: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX) })
    };
    file.files().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Access;

    #[tokio::test(start_paused = true)]
    async fn a_model_is_hashed_once_and_again_when_its_file_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny");
        fs::create_dir(&path).unwrap();
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/tests/data/tiny-llama");
        for file in ["config.json", "model.safetensors"] {
            fs::copy(data.join(file), path.join(file)).unwrap();
        }
        let cache = Cache::new(folder.path().join("cache"), Access::default());
        let made = async || {
            let own = Arc::new(OwnManifest::new(ModelFile::open(&path).unwrap(), &cache));
            let made = own.get(false).await.unwrap();
            (made, own.hashed_bytes.load(Ordering::Relaxed))
        };
        let weights = path.join("model.safetensors");
        let bytes = fs::metadata(&weights).unwrap().len();
        let (first, hashed) = made().await;
        assert_eq!(hashed, bytes);
        assert_eq!(made().await, (first.clone(), 0));
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        File::options().append(true).open(&weights).unwrap().set_modified(later).unwrap();
        assert_eq!(made().await, (first, bytes));

        let own = Arc::new(OwnManifest::new(ModelFile::open(&path).unwrap(), &cache));
        own.state.send_replace(State::Hashing);
        own.hashed_bytes.store(bytes, Ordering::Relaxed);
        assert_eq!(own.get(true).await.unwrap_err(), LayerRefusal::Hashing { percent: 100 });
    }
}
