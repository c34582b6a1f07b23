//! The fetch of a model's header and of layers: decides what is missing, asks for it, checks each chunk, and keeps the
//! bytes that are wanted.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use schema::{Fingerprint, LayerRange};
use stages::gguf::Extent;
use stages::weights::ModelFile;
use tracing::warn;

use super::byte_ranges::ByteRanges;
use super::client::LayerClient;
use super::error::{LayersError, WrongChunk};
use super::folder::PartialModel;
use super::limits::{CHUNK_BYTES, CHUNKS_AT_ONCE, MANIFEST_WAIT_MAX, OPEN_TRIES, RETRY_PAUSE, SAVE_BYTES, STALL_MAX};
use super::manifest::ChunkManifest;
use super::protocol::LayerRefusal;
use crate::error_chain::chain;
use crate::models::limits::GGUF_HEADER_BYTES_MAX;
use crate::models::{Cache, Console, Progress, check_space, file_use};

/// The value of a progress that there is none of.
const NO_PERCENT: u8 = u8::MAX;

/// The share of a file by which the hashing of another machine goes on between two messages, in percent.
const HASHING_STEP_PERCENT: u8 = 10;

/// A model whose layers are fetched as they are needed.
pub struct LayerFetch {
    cache: Cache,
    manifest: ChunkManifest,
    model: PartialModel,
    client: Mutex<LayerClient>,
    percent: AtomicU8,
    stop: Arc<AtomicBool>,
}

// === impl LayerFetch ===

impl LayerFetch {
    /// Fetches the manifest and the headers of the model `name` with `fingerprint`, as far as they are not here. Ends when
    /// `stop` is set. Blocking.
    ///
    /// # Errors
    /// [`LayersError`] names the source and the reason.
    pub fn open(
        mut client: LayerClient,
        (name, fingerprint): (&str, &Fingerprint),
        cache: &Cache,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, LayersError> {
        let manifest = ask_manifest(&mut client, fingerprint, &stop)?;
        let _lock = cache.lock(&lock_name(&PartialModel::name(fingerprint)), &mut Console::stoppable(stop.clone()))?;
        let model = PartialModel::open(cache, &manifest, name)?;
        let (client, percent) = (Mutex::new(client), AtomicU8::new(NO_PERCENT));
        let fetch = Self { cache: cache.clone(), manifest, model, client, percent, stop };
        fetch.headers()?;
        Ok(fetch)
    }

    /// The model's files, of which the headers are here.
    ///
    /// # Errors
    /// [`stages::weights::OpenError`] if a header is not usable.
    pub fn file(&self) -> Result<ModelFile, stages::weights::OpenError> {
        let file = ModelFile::open_partial(self.model.path(), self.manifest.fingerprint())?;
        file_use::hold(&file);
        Ok(file)
    }

    /// The path of the first of them.
    pub fn path(&self) -> &Path {
        self.model.path()
    }

    /// Fetches what is missing of `layers`, as long as `wanted` returns true. `needed` are their bytes, of each file.
    /// Blocking.
    ///
    /// # Errors
    /// [`LayersError`] names the source and the reason.
    pub fn layers(
        &self,
        layers: LayerRange,
        needed: &[Vec<Range<u64>>],
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), LayersError> {
        if self.has(needed)? {
            return Ok(());
        }
        let mut console = Console::stoppable(self.stop.clone());
        let _lock = self.cache.lock(&lock_name(&PartialModel::name(self.manifest.fingerprint())), &mut console)?;
        let map = self.model.map()?;
        let missing = missing(&map, needed);
        let total: u64 = needed.iter().flatten().map(length).sum();
        let lacking: u64 = missing.iter().flatten().map(length).sum();
        check_space(self.model.place(), lacking)?;
        console.begin(&format!("fetching layers {layers}"), total);
        let mut progress = Fetched { console, total, done: total - lacking, fetch: self };
        progress.add(0);
        self.fetch(map, &missing, wanted, &mut |bytes| progress.add(bytes))
    }

    /// True if all of `needed` is here.
    ///
    /// # Errors
    /// [`LayersError::Cache`] if the map cannot be read.
    pub fn has(&self, needed: &[Vec<Range<u64>>]) -> Result<bool, LayersError> {
        Ok(missing(&self.model.map()?, needed).iter().all(Vec::is_empty))
    }

    /// The share of the layers that are being fetched which is here, in percent.
    pub fn percent(&self) -> Option<u8> {
        Some(self.percent.load(Ordering::Relaxed)).filter(|percent| *percent != NO_PERCENT)
    }

    /// Fetches `missing`, and adds it to `map`.
    fn fetch(
        &self,
        mut map: Vec<ByteRanges>,
        missing: &[Vec<Range<u64>>],
        wanted: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), LayersError> {
        let mut unsaved = 0;
        for (part, ranges) in missing.iter().enumerate() {
            for chunks in runs_of_chunks(ranges) {
                let fetched = if wanted() { self.chunks(part, &chunks) } else { Err(LayersError::Stopped) };
                let bytes = match fetched {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        self.model.save(map)?;
                        return Err(error);
                    }
                };
                let start = chunks.start * CHUNK_BYTES;
                let end = start + bytes.len() as u64;
                for range in ranges.iter().filter(|range| range.start < end && start < range.end) {
                    let kept = range.start.max(start)..range.end.min(end);
                    self.model.write(part, kept.start, &bytes[at(start, &kept)])?;
                    unsaved += length(&kept);
                    progress(length(&kept));
                    map[part].insert(kept);
                }
                if unsaved >= SAVE_BYTES {
                    self.model.save(map.clone())?;
                    unsaved = 0;
                }
            }
        }
        self.model.save(map)
    }

    /// Fetches the headers of all files, unless they are here.
    fn headers(&self) -> Result<(), LayersError> {
        let mut map = self.model.map()?;
        for (part, file_bytes) in self.manifest.part_bytes().enumerate() {
            let here = map[part].missing(&(0..file_bytes)).first().map_or(file_bytes, |missing| missing.start);
            if self.has_header(part, here, file_bytes)? {
                continue;
            }
            let header = self.header(part, file_bytes)?;
            self.model.write(part, 0, &header)?;
            map[part].insert(0..header.len() as u64);
        }
        self.model.save(map)
    }

    /// True if the first `here` bytes of a file, which are on this machine, hold its header.
    /// Reads little more than the header.
    fn has_header(&self, part: usize, here: u64, file_bytes: u64) -> Result<bool, LayersError> {
        let here = here.min(GGUF_HEADER_BYTES_MAX);
        let mut length = here.min(CHUNK_BYTES);
        loop {
            match Extent::of(&self.model.read(part, 0..length)?, file_bytes) {
                Ok(Extent::Needs(needed)) if needed <= here => length = needed.max(2 * length).min(here),
                found => return Ok(matches!(found, Ok(Extent::Whole(_)))),
            }
        }
    }

    /// The header of a file, by chunks from its start until it is whole.
    fn header(&self, part: usize, file_bytes: u64) -> Result<Vec<u8>, LayersError> {
        let unusable = |cause| LayersError::Header { part: part + 1, cause };
        let mut bytes = Vec::new();
        loop {
            let next = bytes.len() as u64 / CHUNK_BYTES;
            if next * CHUNK_BYTES >= file_bytes.min(GGUF_HEADER_BYTES_MAX) {
                return Err(unusable(format!("longer than {} bytes", bytes.len()).into()));
            }
            bytes.extend(self.chunks(part, &(next..next + 1))?);
            if let Extent::Whole(header) = Extent::of(&bytes, file_bytes).map_err(|cause| unusable(cause.into()))? {
                bytes.truncate(header as usize);
                return Ok(bytes);
            }
        }
    }

    /// Chunks that follow each other, checked. Asks until they come, or nothing has come for too long.
    fn chunks(&self, part: usize, chunks: &Range<u64>) -> Result<Vec<u8>, LayersError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let range = chunks.start * CHUNK_BYTES..self.manifest.chunk(part, chunks.end - 1).end;
        let (started, mut warned) = (Instant::now(), false);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(LayersError::Stopped);
            }
            let source = client.source().unwrap_or_default().to_owned();
            let error = match client.bytes(part, range.clone()) {
                Ok(bytes) => match self.check(part, chunks, &bytes, &source) {
                    Ok(()) => return Ok(bytes),
                    Err(wrong) => {
                        warn!("{wrong}");
                        client.leave_out();
                        if client.source().is_some() {
                            continue;
                        }
                        return Err(wrong.into());
                    }
                },
                Err(error) if error.may_pass() => error,
                Err(error) => return Err(error),
            };
            if started.elapsed() > STALL_MAX {
                let waited_s = started.elapsed().as_secs();
                return Err(LayersError::Stalled { waited_s, cause: Box::new(error) });
            }
            if !std::mem::replace(&mut warned, true) {
                warn!(error = %chain(&error), "the fetch of layers waits");
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    fn check(&self, part: usize, chunks: &Range<u64>, bytes: &[u8], source: &str) -> Result<(), WrongChunk> {
        for (chunk, piece) in chunks.clone().zip(bytes.chunks(CHUNK_BYTES as usize)) {
            self.manifest.check(part, chunk, piece).map_err(|(expected, found)| WrongChunk {
                source_name: source.to_owned(),
                part: part + 1,
                chunk,
                expected,
                found,
            })?;
        }
        Ok(())
    }
}

/// Asks for the manifest until it comes, or nobody is likely to give it.
fn ask_manifest(
    client: &mut LayerClient,
    fingerprint: &Fingerprint,
    stop: &Arc<AtomicBool>,
) -> Result<ChunkManifest, LayersError> {
    let (mut tries, mut said, started) = (1, None, Instant::now());
    loop {
        let error = match client.manifest(fingerprint) {
            Err(error) if error.may_pass() && !stop.load(Ordering::Relaxed) => error,
            manifest => return manifest,
        };
        match &error {
            LayersError::Refused { reason: LayerRefusal::Hashing { percent }, address }
                if started.elapsed() < MANIFEST_WAIT_MAX =>
            {
                let step = percent / HASHING_STEP_PERCENT;
                if said.replace(step) != Some(step) {
                    Console::stoppable(stop.clone()).message(&format!("{address} is hashing its file, {percent} %"));
                }
            }
            _ if tries < OPEN_TRIES => {
                warn!(error = %chain(&error), "asking again for the model's manifest");
                tries += 1;
            }
            _ => return Err(error),
        }
        std::thread::sleep(RETRY_PAUSE);
    }
}

/// The progress of a fetch. Dropping it ends the display.
struct Fetched<'a> {
    console: Console,
    total: u64,
    done: u64,
    fetch: &'a LayerFetch,
}

// === impl Fetched ===

impl Fetched<'_> {
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        self.console.at(self.done);
        let percent = self.done.min(self.total).saturating_mul(100) / self.total.max(1);
        self.fetch.percent.store(percent as u8, Ordering::Relaxed);
    }
}

impl Drop for Fetched<'_> {
    fn drop(&mut self) {
        self.console.end();
        self.fetch.percent.store(NO_PERCENT, Ordering::Relaxed);
    }
}

/// The parts of `needed` that `map` does not have, of each file.
fn missing(map: &[ByteRanges], needed: &[Vec<Range<u64>>]) -> Vec<Vec<Range<u64>>> {
    let parts = map.iter().zip(needed);
    parts.map(|(map, needed)| needed.iter().flat_map(|range| map.missing(range)).collect()).collect()
}

/// The chunks in which `ranges`, which are in order, lie: runs of neighbours, at most [`CHUNKS_AT_ONCE`] each.
fn runs_of_chunks(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        for chunk in range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES) {
            match runs.last_mut() {
                Some(run) if chunk < run.end => {}
                Some(run) if chunk == run.end && run.end - run.start < CHUNKS_AT_ONCE => run.end += 1,
                _ => runs.push(chunk..chunk + 1),
            }
        }
    }
    runs
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

/// The place of `range` in bytes that begin at `start`.
fn at(start: u64, range: &Range<u64>) -> Range<usize> {
    (range.start - start) as usize..(range.end - start) as usize
}

/// The name of the lock of a model whose folder has this name.
pub(super) fn lock_name(folder: &str) -> String {
    format!("layers-{folder}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_asked_for_once_and_a_bounded_number_at_a_time() {
        let (chunk, most) = (CHUNK_BYTES, CHUNKS_AT_ONCE);
        assert_eq!(
            runs_of_chunks(&[5..9, 10..chunk + 1, chunk + 7..2 * chunk, 4 * chunk..4 * chunk + 1]),
            [0..2, 4..5]
        );
        let long = runs_of_chunks(&[0..1, chunk..20 * chunk]);
        assert_eq!(long, [0..most, most..2 * most, 2 * most..20]);
        assert_eq!(runs_of_chunks(&[]), []);
    }
}
