//! The models of which parts lie in the cache: listed, checked against their manifests, and removed.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use schema::LayerRange;
use stages::weights::ModelFile;

use super::byte_ranges::ByteRanges;
use super::fetch::lock_name;
use super::folder::{self, file_name};
use super::limits::CHUNK_BYTES;
use super::manifest::ChunkManifest;
use super::own_manifest;
use crate::models::{Cache, Console, ModelError, file_use};

/// A model of which parts are here.
#[derive(Debug)]
pub struct PartialEntry {
    /// The model's name in its cluster, or that of the folder if an older version made it.
    pub name: String,
    /// The folder of its files.
    pub folder: PathBuf,
    /// Its files, sparse.
    pub files: Vec<PathBuf>,
    /// Length of the whole model, in bytes.
    pub bytes: u64,
    /// The layers that are here whole.
    pub layers: Vec<LayerRange>,
    /// Number of layers of the model. 0 if its header is not here.
    pub layers_of_model: u32,
}

/// The outcome of a check against a manifest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Bytes that were compared.
    pub bytes: u64,
    /// Bytes that are a part of a chunk, so nobody can compare them alone.
    pub bytes_of_parts: u64,
    /// A sentence for each wrong chunk.
    pub wrong: Vec<String>,
}

// === impl PartialEntry ===

impl PartialEntry {
    /// All of them in `cache`, by name.
    pub fn list(cache: &Cache) -> Vec<Self> {
        let folders = fs::read_dir(cache.layers_folder()).into_iter().flatten().flatten();
        let mut found: Vec<_> = folders.filter_map(|entry| Self::read(&entry.path())).collect();
        found.sort_by(|a, b| (&a.name, &a.folder).cmp(&(&b.name, &b.folder)));
        found
    }

    /// The model in `folder`. `None` if that is no folder.
    fn read(folder: &Path) -> Option<Self> {
        folder.is_dir().then_some(())?;
        let map = folder::read_map(folder).ok().flatten();
        let count = map.as_ref().map_or(1, |map| map.parts.len());
        let files: Vec<_> = (0..count).map(|index| folder.join(file_name(index, count))).collect();
        let lengths = files.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len()));
        let own = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = map.as_ref().and_then(|map| map.name.clone()).unwrap_or(own);
        let manifest = folder::read_manifest(folder);
        let header = manifest.and_then(|manifest| ModelFile::open_partial(files.first()?, manifest.fingerprint()).ok());
        let (layers, layers_of_model) = match (&header, &map) {
            (Some(header), Some(map)) => layers_here(header, &map.parts),
            _ => (Vec::new(), 0),
        };
        let bytes = lengths.sum();
        Some(Self { name, folder: folder.to_owned(), bytes, files, layers, layers_of_model })
    }

    /// Compares the chunks that are here whole with the manifest. Tells `progress` the bytes.
    ///
    /// # Errors
    /// The reason that nothing can be compared.
    pub fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<Checked, String> {
        let map = folder::read_map(&self.folder).map_err(|error| error.to_string())?.ok_or("it has no sound map")?;
        let manifest = folder::read_manifest(&self.folder).filter(|manifest| manifest.root() == map.root);
        let manifest = manifest.ok_or("its manifest is not here, so there is nothing to compare with")?;
        let mut checked = Checked::default();
        for (part, (path, ranges)) in self.files.iter().zip(&map.parts).enumerate() {
            let file = fs::File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            for range in Vec::from(ranges.clone()) {
                check_range(&manifest, (part, path, &file), &(range.0..range.1), &mut checked, progress)?;
            }
        }
        Ok(checked)
    }

    /// Removes it, unless a process uses or fetches it. Returns true if it was removed.
    ///
    /// # Errors
    /// [`ModelError`] if a file cannot be removed.
    pub fn remove(&self, cache: &Cache) -> Result<bool, ModelError> {
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Without waiting: whoever holds the lock uses the model.
        let mut at_once = Console::stoppable(Arc::new(AtomicBool::new(true)));
        let _lock = match cache.lock(&lock_name(&name), &mut at_once) {
            Ok(lock) => lock,
            Err(ModelError::Cancelled) => return Ok(false),
            Err(error) => return Err(error),
        };
        let Some(_files) = file_use::take_all(&self.files) else { return Ok(false) };
        let removed = fs::remove_dir_all(&self.folder);
        removed.map_err(|error| ModelError::io("remove", &self.folder, error))?;
        Ok(true)
    }
}

/// Compares a model that is here whole with the manifest that was kept of it. `None` without one of the file as it is.
///
/// # Errors
/// The reason that it cannot be read.
pub fn check_whole(cache: &Cache, file: &ModelFile, progress: &mut dyn FnMut(u64)) -> Option<Result<Checked, String>> {
    let manifest = own_manifest::kept(&own_manifest::kept_at(cache, file), file)?;
    let mut checked = Checked::default();
    let lengths: Vec<_> = manifest.part_bytes().collect();
    for (part, (open, bytes)) in file.files().zip(lengths).enumerate() {
        if let Err(error) = check_range(&manifest, (part, file.path(), open), &(0..bytes), &mut checked, progress) {
            return Some(Err(error));
        }
    }
    Some(Ok(checked))
}

/// Compares the whole chunks of `range` of a file.
fn check_range(
    manifest: &ChunkManifest,
    (part, path, file): (usize, &Path, &fs::File),
    range: &Range<u64>,
    checked: &mut Checked,
    progress: &mut dyn FnMut(u64),
) -> Result<(), String> {
    use std::os::unix::fs::FileExt;
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    if range.end > manifest.part_bytes().nth(part).unwrap_or(0) {
        return Err(format!("{} has more bytes than its manifest", path.display()));
    }
    let mut buffer = vec![0; CHUNK_BYTES as usize];
    for index in range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES) {
        let chunk = manifest.chunk(part, index);
        let here = chunk.start.max(range.start)..chunk.end.min(range.end);
        if here != chunk {
            checked.bytes_of_parts += here.end - here.start;
            continue;
        }
        let bytes = &mut buffer[..(chunk.end - chunk.start) as usize];
        file.read_exact_at(bytes, chunk.start).map_err(failed)?;
        checked.bytes += bytes.len() as u64;
        progress(bytes.len() as u64);
        if let Err((expected, found)) = manifest.check(part, index, bytes) {
            checked.wrong.push(format!(
                "{}: chunk {index} (bytes {}..{}) is wrong: expected BLAKE3 {expected}, found {found}",
                path.display(),
                chunk.start,
                chunk.end
            ));
        }
    }
    Ok(())
}

/// The layers of which `map` has all bytes that a stage with them alone needs, as runs, and the number of all layers.
pub(super) fn layers_here(file: &ModelFile, map: &[ByteRanges]) -> (Vec<LayerRange>, u32) {
    let mut runs: Vec<LayerRange> = Vec::new();
    let mut count = 0;
    while let Some(needed) = LayerRange::new(count, count + 1).and_then(|layer| file.bytes_of(layer).ok()) {
        let is_here =
            map.iter().zip(&needed).all(|(map, ranges)| ranges.iter().all(|range| map.missing(range).is_empty()));
        if is_here {
            let start = runs.pop_if(|run| run.end() == count).map_or(count, LayerRange::start);
            runs.extend(LayerRange::new(start, count + 1));
        }
        count += 1;
    }
    (runs, count)
}
