//! The cache of model files on this machine.
//!
//! `models/` has the files of the catalogue, `hub/` those of a model hub in the hub's own layout, `ollama/` links into
//! Ollama's store, `layers/` models of which only some layers are here, `manifests/` the hashes of models that were
//! served to machines that have only some, `staging/` unfinished downloads, and `locks/` one lock file for each model
//! that is or was being fetched.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checksum;
use super::choice;
use super::elsewhere::{self, OtherCaches};
use super::error::ModelError;
use super::progress::Progress;

/// Interval at which a waiting process tries the lock again: short compared with a fetch, long compared with a try.
const LOCK_POLL: Duration = Duration::from_millis(100);
/// Depth to which the hub's layout is searched: snapshots, commit, and folders inside a repository.
const HUB_DEPTH_MAX: usize = 8;

/// The cache, and the settings for fetching files into it.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    access: Access,
}

/// Settings for fetching files. The defaults are those of the machine.
#[derive(Clone, Default)]
pub struct Access {
    /// Folders in which pip is searched, in the form of PATH. `None` for this process's own PATH.
    pub search_path: Option<OsString>,
    /// The model hub's address. `None` for huggingface.co.
    pub hub_endpoint: Option<String>,
    /// The token that the hub requires for files that are not public.
    pub hub_token: Option<String>,
    /// Folders of other programs in which models are looked for.
    pub others: OtherCaches,
}

/// A model file on this machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cached {
    /// The file's name without its ending.
    pub name: String,
    /// Path of the file.
    pub path: PathBuf,
    /// Its length, in bytes.
    pub bytes: u64,
    /// SHA-256 from the file's checksum record, in hex. `None` without a valid record.
    pub sha256: Option<String>,
}

/// The right to fetch one model, held through a locked file. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

// === impl Cache ===

impl Cache {
    /// A cache in the folder `root`, which need not exist yet.
    pub fn new(root: PathBuf, access: Access) -> Self {
        Self { root, access }
    }

    /// The folder of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the catalogue's files.
    pub fn models_folder(&self) -> PathBuf {
        self.root.join("models")
    }

    pub(super) fn hub_folder(&self) -> PathBuf {
        self.root.join("hub")
    }

    /// The folder of links to models in Ollama's store.
    pub(super) fn links_folder(&self) -> PathBuf {
        self.root.join("ollama")
    }

    /// The folder of notes about files that are elsewhere.
    pub(super) fn paths_folder(&self) -> PathBuf {
        self.root.join("paths")
    }

    pub(super) fn staging_folder(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// The folder of models of which only parts are here, each in a folder of its own.
    #[cfg(feature = "tls")]
    pub(crate) fn layers_folder(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The folder of manifests of models that are here whole.
    #[cfg(feature = "tls")]
    pub(crate) fn manifests_folder(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Every model in the cache and in the folders of other programs, by name.
    pub fn list(&self) -> Vec<Cached> {
        let mut found = elsewhere::list(self);
        // Files of web servers lie in folders of their own.
        collect(&self.models_folder(), 1, &mut found);
        collect(&self.links_folder(), 0, &mut found);
        for repository in folders(&self.hub_folder()) {
            collect(&repository.join("snapshots"), HUB_DEPTH_MAX, &mut found);
        }
        found.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        found
    }

    /// Waits for the right to fetch `name`, which another process may hold.
    pub(crate) fn lock(&self, name: &str, progress: &mut dyn Progress) -> Result<Lock, ModelError> {
        let folder = self.root.join("locks");
        create_folder(&folder)?;
        let path = folder.join(format!("{name}.lock"));
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|error| ModelError::io("open", &path, error))?;
        let mut announced = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::Error(error)) => return Err(ModelError::io("lock", path, error)),
                Err(TryLockError::WouldBlock) if progress.cancelled() => return Err(ModelError::Cancelled),
                Err(TryLockError::WouldBlock) => {
                    if !announced {
                        progress.message(&format!("another process is fetching {name}: waiting for it"));
                        announced = true;
                    }
                    std::thread::sleep(LOCK_POLL);
                }
            }
        }
    }
}

// === impl Access ===

impl fmt::Debug for Access {
    /// Shows that there is a token without its text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.hub_token.as_ref().map(|_| "…");
        f.debug_struct("Access")
            .field("search_path", &self.search_path)
            .field("hub_endpoint", &self.hub_endpoint)
            .field("hub_token", &token)
            .field("others", &self.others)
            .finish()
    }
}

pub(super) fn create_folder(path: &Path) -> Result<(), ModelError> {
    fs::create_dir_all(path).map_err(|error| ModelError::io("create the folder", path, error))
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn collect(folder: &Path, depth: usize, found: &mut Vec<Cached>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // `fs::metadata` follows the symbolic links of the hub's layout.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() && depth > 0 {
            collect(&path, depth - 1, found);
        } else if metadata.is_file() && path.extension().is_some_and(|extension| extension == "gguf") {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Of a split model, the first part stands for all.
            if choice::parts(&file).first() != Some(&file) {
                continue;
            }
            let name = choice::stem(&file).to_owned();
            found.push(Cached { name, bytes: metadata.len(), sha256: checksum::recorded(&path), path });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Silent;
    use crate::models::progress::CancelAtOnce;

    #[test]
    fn complete_files_of_catalogue_and_hub_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), Access::default());
        assert_eq!(cache.list(), []);
        let snapshot = cache.hub_folder().join("models--o--r/snapshots/c0ffee/q4");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(cache.models_folder()).unwrap();
        fs::write(cache.models_folder().join("a.gguf"), b"12345").unwrap();
        fs::write(cache.models_folder().join("half.gguf.part"), b"1").unwrap();
        fs::write(cache.hub_folder().join("models--o--r/blob"), b"123").unwrap();
        std::os::unix::fs::symlink(cache.hub_folder().join("models--o--r/blob"), snapshot.join("b.gguf")).unwrap();
        let listed: Vec<_> = cache.list().into_iter().map(|cached| (cached.name, cached.bytes)).collect();
        assert_eq!(listed, [("a".to_owned(), 5), ("b".to_owned(), 3)]);
    }

    #[test]
    fn a_token_is_never_shown() {
        let access = Access { hub_token: Some("hf_secret".to_owned()), ..Access::default() };
        assert!(!format!("{:?}", Cache::new("/c".into(), access)).contains("secret"));
    }

    #[test]
    fn only_one_process_at_a_time_may_fetch_a_model() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), Access::default());
        let held = cache.lock("x", &mut Silent).unwrap();
        assert!(matches!(cache.lock("x", &mut CancelAtOnce), Err(ModelError::Cancelled)));
        cache.lock("y", &mut CancelAtOnce).unwrap();
        drop(held);
        cache.lock("x", &mut CancelAtOnce).unwrap();
    }
}
