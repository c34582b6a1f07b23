//! A model of which only parts are on this machine: its files as sparse ones, and the map of the bytes that are there.
//!
//! Bytes are written and made to last before the map names them, and the map is replaced whole. So after kill -9 the
//! map names no byte that is not there.
//!
//! Each process that uses the files holds a shared lock on them, and they are cut only by one that has them alone. Who
//! opens them holds the lock of the model's fetch.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use schema::Fingerprint;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::byte_ranges::ByteRanges;
use super::error::LayersError;
use super::limits::{MANIFEST_BYTES_MAX, MAP_BYTES_MAX};
use super::manifest::ChunkManifest;
use crate::models::{Cache, ModelError, file_use, part_name};
use crate::new_file;

/// The name of the map.
const MAP: &str = "map.json";
/// The name of the manifest by which the bytes were checked.
const MANIFEST: &str = "manifest.json";

/// A model's files and their map, in a folder of their own.
#[derive(Debug)]
pub struct PartialModel {
    folder: PathBuf,
    root: String,
    model_name: String,
    files: Vec<(PathBuf, File)>,
}

/// The map as it is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Map {
    /// The digest of the manifest by which the bytes were checked.
    pub(super) root: String,
    /// The name of the model in its cluster. Older versions note none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// The bytes that are there, of each file.
    pub(super) parts: Vec<ByteRanges>,
}

// === impl PartialModel ===

impl PartialModel {
    /// The files of the model `model_name` that `manifest` is about, made if they are missing. What lies there of
    /// another manifest is removed. What lies there without a map is fetched again; where another process uses it, into
    /// the same file.
    ///
    /// # Errors
    /// [`LayersError::Cache`] if a file cannot be made, [`LayersError::InUse`] if another process uses bytes that may
    /// be of another manifest.
    pub fn open(cache: &Cache, manifest: &ChunkManifest, model_name: &str) -> Result<Self, LayersError> {
        let folder = Self::folder(cache, manifest.fingerprint());
        let root = manifest.root();
        fs::create_dir_all(&folder).map_err(|cause| io("make the folder", &folder, cause))?;
        let kept = read_map(&folder)?.filter(|map| map.root == root && map.parts.len() == manifest.part_bytes().len());
        let is_new = kept.is_none();
        let has_manifest = read_manifest(&folder).is_some_and(|kept| kept == *manifest);
        let is_same = !is_new || has_manifest;
        let mut parts = kept.map_or_else(|| vec![ByteRanges::default(); manifest.part_bytes().len()], |map| map.parts);
        let (mut files, count) = (Vec::new(), parts.len());
        for ((index, bytes), ranges) in manifest.part_bytes().enumerate().zip(&mut parts) {
            let path = folder.join(file_name(index, count));
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(|cause| io("open", &path, cause))?;
            let has = file.metadata().map_err(|cause| io("read", &path, cause))?.len();
            if is_new || has != bytes || ranges.end() > bytes {
                let is_alone = file_use::take(&file);
                if !is_alone && !is_same && has > 0 {
                    return Err(LayersError::InUse { path: folder });
                }
                // Cut first, so that the file has no bytes of before, and then all of it is a hole. Others who use it
                // have mapped no byte beyond its length.
                let cut = if is_alone { file.set_len(0) } else { Ok(()) };
                cut.and_then(|()| file.set_len(bytes)).map_err(|cause| io("make room in", &path, cause))?;
                *ranges = ByteRanges::default();
            }
            file_use::hold_file(&file);
            files.push((path, file));
        }
        let model = Self { folder, root, model_name: model_name.to_owned(), files };
        if !has_manifest {
            model.replace(MANIFEST, manifest)?;
        }
        model.write_map(parts)?;
        Ok(model)
    }

    /// The folder of the model with `fingerprint`.
    fn folder(cache: &Cache, fingerprint: &Fingerprint) -> PathBuf {
        cache.layers_folder().join(Self::name(fingerprint))
    }

    /// The name of the model with `fingerprint` on this machine. A record of the store names it, so it is not a path.
    pub(super) fn name(fingerprint: &Fingerprint) -> String {
        fingerprint.0.chars().filter(char::is_ascii_alphanumeric).take(64).collect()
    }

    /// The path of its first file.
    pub fn path(&self) -> &Path {
        self.files.first().map_or(&self.folder, |(path, _)| path)
    }

    /// The folder, for the question of free space.
    pub(super) fn place(&self) -> &Path {
        &self.folder
    }

    /// The bytes that are there, of each file, as another process may have left them.
    pub(super) fn map(&self) -> Result<Vec<ByteRanges>, LayersError> {
        let kept = read_map(&self.folder)?.filter(|map| map.root == self.root && map.parts.len() == self.files.len());
        Ok(kept.map_or_else(|| vec![ByteRanges::default(); self.files.len()], |map| map.parts))
    }

    /// Bytes of a file.
    pub(super) fn read(&self, part: usize, range: Range<u64>) -> Result<Vec<u8>, LayersError> {
        let (path, file) = &self.files[part];
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start).map_err(|cause| io("read", path, cause))?;
        Ok(bytes)
    }

    /// Writes bytes at `start` of a file.
    pub(super) fn write(&self, part: usize, start: u64, bytes: &[u8]) -> Result<(), LayersError> {
        let (path, file) = &self.files[part];
        file.write_all_at(bytes, start).map_err(|cause| io("write", path, cause))
    }

    /// Makes what was written last, and notes it: `parts` are all bytes that are there.
    pub(super) fn save(&self, parts: Vec<ByteRanges>) -> Result<(), LayersError> {
        for (path, file) in &self.files {
            file.sync_data().map_err(|cause| io("write", path, cause))?;
        }
        self.write_map(parts)
    }

    fn write_map(&self, parts: Vec<ByteRanges>) -> Result<(), LayersError> {
        self.replace(MAP, &Map { root: self.root.clone(), name: Some(self.model_name.clone()), parts })
    }

    /// Replaces a file of the folder by another one whole.
    fn replace(&self, name: &str, value: &impl Serialize) -> Result<(), LayersError> {
        let path = self.folder.join(name);
        let failed = |cause| io("write", &path, cause);
        let text = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
        new_file::written(&self.folder, &text).map_err(failed)?.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// The name of file `index` of `count`: a split model's files are found by theirs.
pub(super) fn file_name(index: usize, count: usize) -> String {
    if count == 1 { "model.gguf".to_owned() } else { part_name("model", index as u32 + 1, count as u32) }
}

/// The map in a folder. `None` if there is none, or none that can be used.
pub(super) fn read_map(folder: &Path) -> Result<Option<Map>, LayersError> {
    let path = folder.join(MAP);
    let Some(text) = read(&path, MAP_BYTES_MAX).map_err(|cause| io("read", &path, cause))? else { return Ok(None) };
    let map = serde_json::from_slice(&text);
    Ok(map.inspect_err(|error| warn!(path = %path.display(), %error, "the map is damaged: fetching anew")).ok())
}

/// The manifest in a folder, if it is sound.
pub(super) fn read_manifest(folder: &Path) -> Option<ChunkManifest> {
    let text = read(&folder.join(MANIFEST), MANIFEST_BYTES_MAX).ok()??;
    serde_json::from_slice(&text).ok()
}

/// At most the first `bytes_max` bytes of a file. `None` if it is not there.
fn read(path: &Path, bytes_max: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn io(doing: &'static str, path: &Path, cause: std::io::Error) -> LayersError {
    ModelError::io(doing, path, cause).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Access;

    fn manifest(first: char) -> ChunkManifest {
        let part = format!(r#"[{{"bytes":9,"chunks":"{first}{}"}}]"#, "0".repeat(63));
        serde_json::from_str(&format!(r#"{{"fingerprint":"f","chunk_bytes":1048576,"parts":{part}}}"#)).unwrap()
    }

    #[test]
    fn bytes_that_somebody_reads_are_never_cut() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), Access::default());
        let first = PartialModel::open(&cache, &manifest('a'), "m").unwrap();
        first.write(0, 0, b"abcdefghi").unwrap();
        let mut map = first.map().unwrap();
        map[0].insert(0..9);
        first.save(map.clone()).unwrap();
        assert_eq!(PartialModel::open(&cache, &manifest('a'), "m").unwrap().map().unwrap(), map);

        // Without a map, the bytes stay where they are for those who read them.
        fs::write(first.folder.join(MAP), b"[").unwrap();
        let second = PartialModel::open(&cache, &manifest('a'), "m").unwrap();
        assert_eq!(second.map().unwrap(), [ByteRanges::default()]);
        assert_eq!(second.read(0, 0..9).unwrap(), b"abcdefghi");
        let refused = PartialModel::open(&cache, &manifest('b'), "m").unwrap_err();
        assert!(matches!(refused, LayersError::InUse { .. }), "{refused}");
        assert_eq!(first.read(0, 0..9).unwrap(), b"abcdefghi");

        // With nobody there, another manifest's files are empty.
        drop((first, second));
        let other = PartialModel::open(&cache, &manifest('b'), "m").unwrap();
        assert_eq!((other.map().unwrap(), other.read(0, 0..9).unwrap()), (vec![ByteRanges::default()], vec![0; 9]));
    }
}
