//! A model that is on this machine whole: its files, the hashes that are known of them, and its removal.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{Cache, Cached};
use super::error::ModelError;
use super::{checksum, choice, file_use};

/// A model that is here whole.
#[derive(Debug)]
pub struct WholeEntry {
    /// Its name.
    pub name: String,
    /// The file or folder to open.
    pub path: PathBuf,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// True if it lies in the cache, false if in the folder of another program.
    pub is_own: bool,
}

// === impl WholeEntry ===

impl WholeEntry {
    /// All of them, by name.
    pub fn list(cache: &Cache) -> Vec<Self> {
        let own = [cache.models_folder(), cache.hub_folder()];
        let entry = |Cached { name, path, .. }| {
            let is_own = own.iter().any(|folder| path.starts_with(folder));
            Self { files: files_of(&path), name, is_own, path }
        };
        cache.list().into_iter().map(entry).collect()
    }

    /// The SHA-256 that is known of each of its files: from its checksum record, or from the hub, which names a file
    /// by it. Files without one are left out.
    pub fn known(&self) -> Vec<(&Path, String)> {
        let of_hub = |path: &Path| {
            let name = fs::canonicalize(path).ok()?.file_name()?.to_str()?.to_owned();
            (checksum::is_sha256(&name)).then_some(name)
        };
        let known = |path: &PathBuf| checksum::written(path).or_else(|| of_hub(path));
        self.files.iter().filter_map(|path| Some((path.as_path(), known(path)?))).collect()
    }

    /// Compares a file with its SHA-256. A sentence if it is another.
    ///
    /// # Errors
    /// [`ModelError::Io`] if it cannot be read.
    pub fn check(path: &Path, expected: &str) -> Result<Option<String>, ModelError> {
        let found = checksum::of_file(path)?;
        let is_other = found != expected;
        Ok(is_other.then(|| format!("{} is wrong: expected SHA-256 {expected}, found {found}", path.display())))
    }

    /// Removes it from the cache, unless a process uses it or it is another program's. Returns true if it was removed.
    ///
    /// # Errors
    /// [`ModelError::Io`] if a file cannot be removed.
    pub fn remove(&self) -> Result<bool, ModelError> {
        let taken = if self.is_own { file_use::take_all(&self.files) } else { None };
        let Some(_files) = taken else { return Ok(false) };
        for path in &self.files {
            let remove = |path: &Path| fs::remove_file(path).map_err(|error| ModelError::io("remove", path, error));
            // In a hub's layout, a file is a link to its contents.
            if let Some(contents) = fs::read_link(path).ok().and_then(|_| fs::canonicalize(path).ok()) {
                remove(&contents)?;
            }
            remove(path)?;
            // Most have none.
            let _ = fs::remove_file(checksum::record_path(path));
        }
        // A folder that still has something stays.
        if let Some(folder) = self.files.first().and_then(|file| file.parent()) {
            let _ = fs::remove_dir(folder);
        }
        Ok(true)
    }
}

/// The files of the model at `path`: the parts of a split one, those in a folder.
fn files_of(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
        return files;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    choice::parts(&name).iter().map(|part| path.with_file_name(part)).filter(|path| path.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Access, OtherCaches};

    #[test]
    fn what_is_used_or_another_program_s_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let others = OtherCaches { hub: vec![folder.path().join("hub")], ..OtherCaches::default() };
        let cache = Cache::new(folder.path().join("cache"), Access { others, ..Access::default() });
        let (own, blob) = (cache.models_folder(), cache.hub_folder().join("models--o--r/blobs").join("0a".repeat(32)));
        let write = |path: &Path, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for path in [own.join("s-00001-of-00002.gguf"), own.join("s-00002-of-00002.gguf"), own.join("used.gguf")] {
            write(&path, "GGUF");
        }
        checksum::record(&own.join("used.gguf"), &"1".repeat(64)).unwrap();
        write(&blob, "GGUF");
        let link = cache.hub_folder().join("models--o--r/snapshots/c0ffee/linked.gguf");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&blob, &link).unwrap();
        write(&folder.path().join("hub/models--o--x/snapshots/c/other.gguf"), "GGUF");

        let used = fs::File::open(own.join("used.gguf")).unwrap();
        file_use::hold_file(&used);
        let entries = WholeEntry::list(&cache);
        let names: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.files.len())).collect();
        assert_eq!(names, [("linked", 1), ("other", 1), ("s", 2), ("used", 1)]);
        let known: Vec<_> = entries.iter().flat_map(WholeEntry::known).map(|(_, sha256)| sha256).collect();
        assert_eq!(known, ["0a".repeat(32), "1".repeat(64)]);
        let wrong = WholeEntry::check(&own.join("used.gguf"), &"1".repeat(64)).unwrap().unwrap();
        assert!(wrong.contains("expected SHA-256 1111"), "{wrong}");
        let removed: Vec<_> = entries.iter().map(|entry| entry.remove().unwrap()).collect();
        assert_eq!(removed, [true, false, true, false]);
        assert!(!blob.exists() && !link.exists(), "the contents of a link go with it");
        drop(used);
        let left: Vec<_> = WholeEntry::list(&cache).into_iter().map(|entry| entry.name).collect();
        assert_eq!(left, ["other", "used"]);
    }
}
