//! The fetch of a model's header and of layers: decides what is missing, asks for it, checks each chunk, and keeps the
//! bytes that are wanted.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use schema::{Fingerprint, LayerRange};
use stages::weights::ModelFile;
use tracing::warn;

use super::byte_ranges::ByteRanges;
use super::client::LayerClient;
use super::error::{LayersError, WrongChunk};
use super::folder::PartialModel;
use super::inventory::layers_here;
use super::limits::{
    CHUNK_BYTES, CHUNKS_AT_ONCE, MANIFEST_WAIT_MAX, OPEN_TRIES, RETRY_PAUSE, RUNS_AHEAD, SAVE_BYTES, STALL_MAX,
};
use super::manifest::ChunkManifest;
use super::protocol::LayerRefusal;
use crate::error_chain::chain;
use crate::models::growing_header::HeaderStep;
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
    /// Fetches the manifest and the headers of the model `name` with `fingerprint`, as far as they are not here. Ends
    /// when `stop` is set. Blocking.
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

    /// The model.
    pub(super) fn fingerprint(&self) -> &Fingerprint {
        self.manifest.fingerprint()
    }

    /// The first whole chunks of these bytes, which begin with one, as far as they are here.
    ///
    /// # Errors
    /// [`LayerRefusal`] for whoever asked.
    pub(super) fn read_stored(&self, part: usize, start: u64, bytes: u64) -> Result<Vec<u8>, LayerRefusal> {
        let file_bytes = self.manifest.part_bytes().nth(part).ok_or(LayerRefusal::Range)?;
        let end = start.checked_add(bytes).filter(|end| *end <= file_bytes).ok_or(LayerRefusal::Range)?;
        let is_asked_whole = end == file_bytes || end.is_multiple_of(CHUNK_BYTES);
        if !start.is_multiple_of(CHUNK_BYTES) || !is_asked_whole || !(1..=CHUNKS_AT_ONCE * CHUNK_BYTES).contains(&bytes)
        {
            return Err(LayerRefusal::Range);
        }
        let failed = |error: LayersError| LayerRefusal::Read(chain(&error));
        let map = self.model.map().map_err(failed)?;
        let here = map.get(part).ok_or(LayerRefusal::Range)?.missing(&(start..end));
        let end = here.first().map_or(end, |missing| missing.start / CHUNK_BYTES * CHUNK_BYTES);
        if end <= start {
            return Err(LayerRefusal::Missing);
        }
        self.model.read(part, start..end).map_err(failed)
    }

    /// The layers that are here whole, as runs.
    ///
    /// # Errors
    /// [`LayersError::Cache`] if the map cannot be read.
    pub(super) fn stored(&self, file: &ModelFile) -> Result<Vec<LayerRange>, LayersError> {
        Ok(layers_here(file, &self.model.map()?).0)
    }

    /// Fetches `missing`, and adds it to `map`. A thread of its own asks for bytes, so that the link is not idle while
    /// others are made to last.
    fn fetch(
        &self,
        mut map: Vec<ByteRanges>,
        missing: &[Vec<Range<u64>>],
        wanted: &dyn Fn() -> bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), LayersError> {
        let fetched = std::thread::scope(|scope| {
            let (sender, came) = sync_channel(RUNS_AHEAD);
            scope.spawn(move || {
                let parts = missing.iter().enumerate();
                let mut runs =
                    parts.flat_map(|(part, ranges)| runs_of_chunks(ranges).into_iter().map(move |run| (part, run)));
                // Ends after a failure, or when nobody wants more.
                let _ = runs.try_for_each(|(part, run)| {
                    let bytes = self.chunks(part, &run);
                    let may_go_on = bytes.is_ok();
                    sender.send((part, run.start * CHUNK_BYTES, bytes)).ok().filter(|()| may_go_on)
                });
            });
            let mut unsaved = 0;
            while wanted() {
                let Ok((part, start, bytes)) = came.recv() else { return Ok(()) };
                unsaved += self.keep((part, start, &bytes?), &missing[part], &mut map, progress)?;
                if unsaved >= SAVE_BYTES {
                    self.model.save(map.clone())?;
                    unsaved = 0;
                }
            }
            Err(LayersError::Stopped)
        });
        self.model.save(map)?;
        fetched
    }

    /// Writes what is in `ranges` of the bytes that came from `start` on of a file. Returns the number of these bytes.
    fn keep(
        &self,
        (part, start, bytes): (usize, u64, &[u8]),
        ranges: &[Range<u64>],
        map: &mut [ByteRanges],
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, LayersError> {
        let (end, mut written) = (start + bytes.len() as u64, 0);
        for range in ranges.iter().filter(|range| range.start < end && start < range.end) {
            let kept = range.start.max(start)..range.end.min(end);
            self.model.write(part, kept.start, &bytes[at(start, &kept)])?;
            written += length(&kept);
            progress(length(&kept));
            map[part].insert(kept);
        }
        Ok(written)
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
        let mut length = 0;
        loop {
            match HeaderStep::after(&self.model.read(part, 0..length)?, file_bytes) {
                Ok(HeaderStep::Read { needed, end }) if needed <= here => length = end.min(here),
                found => return Ok(matches!(found, Ok(HeaderStep::Whole(_)))),
            }
        }
    }

    /// The header of a file, by chunks from its start until it is whole.
    fn header(&self, part: usize, file_bytes: u64) -> Result<Vec<u8>, LayersError> {
        let mut bytes = Vec::new();
        loop {
            match HeaderStep::after(&bytes, file_bytes) {
                Ok(HeaderStep::Whole(header)) => {
                    bytes.truncate(header as usize);
                    return Ok(bytes);
                }
                // What is needed for certain: a chunk is more than most headers grow by.
                Ok(HeaderStep::Read { needed, .. }) => {
                    let next = bytes.len() as u64 / CHUNK_BYTES;
                    let last = needed.div_ceil(CHUNK_BYTES).min(next + CHUNKS_AT_ONCE);
                    bytes.extend(self.chunks(part, &(next..last))?);
                }
                Err(cause) => return Err(LayersError::Header { part: part + 1, cause: cause.into() }),
            }
        }
    }

    /// Chunks that follow each other, checked, from as many machines as it takes.
    fn chunks(&self, part: usize, chunks: &Range<u64>) -> Result<Vec<u8>, LayersError> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::new();
        loop {
            let next = chunks.start + bytes.len() as u64 / CHUNK_BYTES;
            bytes.extend(self.first_chunks(&mut client, part, &(next..chunks.end))?);
            // Only the last chunk of a file may be short, and nothing comes after it.
            if chunks.start + (bytes.len() as u64).div_ceil(CHUNK_BYTES) >= chunks.end {
                return Ok(bytes);
            }
        }
    }

    /// The first of these chunks, at least one, checked. Asks one machine after the other until it comes, or nothing
    /// has come for too long, or none is left that could have it.
    fn first_chunks(&self, client: &mut LayerClient, part: usize, chunks: &Range<u64>) -> Result<Vec<u8>, LayersError> {
        let range = chunks.start * CHUNK_BYTES..self.manifest.chunk(part, chunks.end - 1).end;
        let (started, mut warned) = (Instant::now(), false);
        loop {
            let (mut asked, mut failed, mut may_come) = (BTreeSet::new(), None, false);
            while let Some(source) = client.next(|source| !asked.contains(&source.address)) {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(LayersError::Stopped);
                }
                let answer = client.bytes(&source, self.manifest.fingerprint(), part, range.clone());
                let checked = answer.and_then(|bytes| match self.check(part, chunks, &bytes, &source.address) {
                    Ok(()) => Ok(bytes),
                    Err(wrong) => Err(wrong.into()),
                });
                client.note(&source.address, !matches!(&checked, Err(error) if error.may_pass()));
                let error = match checked {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => error,
                };
                // The machine that shares has everything, and comes back. One of many others need not be waited for.
                may_come |= error.may_pass() && source.is_shared;
                if !error.may_pass() && !error.is_missing() {
                    warn!(error = %chain(&error), "a source of layers is left out for a while");
                    client.leave_out(&source.address, &chain(&error));
                }
                // A wrong chunk says more than one that is not there.
                if failed.is_none() || !error.is_missing() {
                    failed = Some(error);
                }
                asked.insert(source.address);
            }
            let error = failed.unwrap_or_else(|| LayersError::NoSource(client.reasons()));
            if !may_come {
                return Err(error);
            }
            if started.elapsed() > STALL_MAX {
                let waited_s = started.elapsed().as_secs();
                return Err(LayersError::Stalled { waited_s, cause: Box::new(error) });
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(LayersError::Stopped);
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

/// Asks the machines with shared ports for the manifest until one gives it, or none is likely to.
fn ask_manifest(
    client: &mut LayerClient,
    fingerprint: &Fingerprint,
    stop: &Arc<AtomicBool>,
) -> Result<ChunkManifest, LayersError> {
    let (mut tries, mut said, started) = (0, None, Instant::now());
    loop {
        let (mut asked, mut failed, mut is_hashing) = (BTreeSet::new(), None, false);
        while let Some(source) = client.next(|source| source.is_shared && !asked.contains(&source.address)) {
            let error = match client.manifest(&source, fingerprint) {
                Ok(manifest) => return Ok(manifest),
                Err(error) => error,
            };
            if let LayersError::Refused { reason: LayerRefusal::Hashing { percent }, address } = &error {
                is_hashing = true;
                let step = (address.clone(), percent / HASHING_STEP_PERCENT);
                if said.as_ref() != Some(&step) {
                    Console::stoppable(stop.clone()).message(&format!("{address} is hashing its file, {percent} %"));
                    said = Some(step);
                }
            } else if !error.may_pass() {
                client.leave_out(&source.address, &chain(&error));
            }
            asked.insert(source.address);
            failed = Some(error);
        }
        tries += u32::from(!is_hashing);
        let error = failed.unwrap_or_else(|| LayersError::NoSource(client.reasons()));
        let waits = if is_hashing { started.elapsed() < MANIFEST_WAIT_MAX } else { tries < OPEN_TRIES };
        if !error.may_pass() || !waits || stop.load(Ordering::Relaxed) {
            return Err(error);
        }
        if !is_hashing {
            warn!(error = %chain(&error), "asking again for the model's manifest");
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
