//! Fetches a file of a model hub with the hub's client library. Interrupted fetches are resumed, and the file is
//! checked against the hub's SHA-256.
//!
//! The files lie below the cache's `hub/`, in the hub's usual layout.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};

use super::cache::{Cache, create_folder};
use super::error::ModelError;
use super::progress::Progress;
use super::source::HubFile;
use super::{checksum, space};

/// The hub that is used if none is named.
const ENDPOINT: &str = "https://huggingface.co";
/// Longest time without a byte, after which the connection counts as dead. The library itself has no timeout.
const STALL: Duration = Duration::from_secs(120);
/// Interval at which the progress of the download is read.
const POLL: Duration = Duration::from_millis(100);

/// Count of downloaded bytes, shared by the downloading thread and the waiting thread.
#[derive(Clone, Default)]
struct Counter {
    bytes: Arc<AtomicU64>,
}

/// A file at the hub.
struct Remote<'a> {
    file: &'a HubFile,
    api: ApiRepo,
    url: String,
}

/// The cached copy of `file`, which is fetched if it is missing.
pub(super) fn fetch(file: &HubFile, cache: &Cache, progress: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    let folder = hf_hub::Cache::new(cache.hub_folder());
    let repo = Repo::new(file.repository.clone(), RepoType::Model);
    if let Some(path) = folder.repo(repo.clone()).get(&file.file) {
        return Ok(path);
    }
    let _lock = cache.lock(&file.to_string().replace(['/', ':'], "--"), progress)?;
    if let Some(path) = folder.repo(repo.clone()).get(&file.file) {
        return Ok(path);
    }
    let endpoint = endpoint(cache);
    let refused = |source: ApiError| ModelError::Hub {
        file: file.to_string(),
        endpoint: endpoint.clone(),
        source: source.into(),
    };
    create_folder(folder.path())?;
    let api = api(cache).map_err(refused)?;
    let at = Remote { file, api: api.repo(repo.clone()), url: api.repo(repo.clone()).url(&file.file) };
    let (blob, bytes, sha256) = at.describe(&api, &folder.repo(repo)).map_err(refused)?;
    let had = prepare(&blob, bytes)?;
    space::check(folder.path(), bytes.saturating_sub(had))?;
    let path = download(at, bytes, progress, &refused)?;
    verify(file, &path, &blob, sha256.as_deref())?;
    Ok(path)
}

/// The hub's address.
pub(super) fn endpoint(cache: &Cache) -> String {
    cache.access().hub_endpoint.clone().unwrap_or_else(|| ENDPOINT.to_owned())
}

/// The hub's client, with its files in the cache.
pub(super) fn api(cache: &Cache) -> Result<Api, ApiError> {
    ApiBuilder::from_cache(hf_hub::Cache::new(cache.hub_folder()))
        .with_endpoint(endpoint(cache))
        .with_token(cache.access().hub_token.clone())
        .with_progress(false)
        .build()
}

// === impl Remote ===

impl Remote<'_> {
    /// Path of the file's bytes in the cache, their number, and the SHA-256 that the hub names (only for large files).
    fn describe(&self, api: &Api, cache: &hf_hub::CacheRepo) -> Result<(PathBuf, u64, Option<String>), ApiError> {
        let metadata = api.metadata(&self.url)?;
        let etag = metadata.etag();
        // The etag is checked because it becomes a file name.
        if etag.is_empty() || etag.len() > 200 || !etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(ApiError::InvalidHeader("etag"));
        }
        let sha256 = checksum::is_sha256(etag).then(|| etag.to_owned());
        Ok((cache.blob_path(etag), metadata.size() as u64, sha256))
    }
}

/// Number of bytes that an earlier fetch left. If that fetch was complete, its last byte is removed, because the
/// library would otherwise request the bytes after the last and be refused.
fn prepare(blob: &Path, bytes: u64) -> Result<u64, ModelError> {
    let part = blob.with_extension("part");
    let Ok(metadata) = fs::metadata(&part) else { return Ok(0) };
    if metadata.len() < bytes {
        return Ok(metadata.len());
    }
    let keep = if metadata.len() == bytes { bytes.saturating_sub(1) } else { 0 };
    let opened = fs::File::options().write(true).open(&part);
    opened.and_then(|file| file.set_len(keep)).map_err(|error| ModelError::io("shorten", &part, error))?;
    Ok(keep)
}

fn download(
    at: Remote<'_>,
    bytes: u64,
    progress: &mut dyn Progress,
    refused: &dyn Fn(ApiError) -> ModelError,
) -> Result<PathBuf, ModelError> {
    let counter = Counter::default();
    let (shared, name) = (counter.clone(), at.file.file.clone());
    let (done, wait) = mpsc::sync_channel(1);
    let api = at.api;
    // The download has a thread of its own, because the library can neither be stopped nor give up a silent connection.
    // A thread that is left behind ends with the process, and the next fetch resumes from the bytes it wrote.
    std::thread::spawn(move || drop(done.send(api.download_with_progress(&name, shared))));
    progress.begin(&format!("fetching {}", at.file), bytes);
    let mut last = (0, Instant::now());
    let ended = loop {
        match wait.recv_timeout(POLL) {
            Ok(result) => break result.map_err(refused),
            Err(RecvTimeoutError::Disconnected) => break Err(refused(ApiError::InvalidResume)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = counter.bytes.load(Ordering::Relaxed);
        progress.at(now);
        if now != last.0 {
            last = (now, Instant::now());
        }
        if progress.cancelled() {
            break Err(ModelError::Cancelled);
        }
        if last.1.elapsed() > STALL {
            break Err(ModelError::Stalled { file: at.file.to_string(), seconds: STALL.as_secs() });
        }
    };
    progress.at(counter.bytes.load(Ordering::Relaxed));
    progress.end();
    ended.map_err(full_disk)
}

fn full_disk(error: ModelError) -> ModelError {
    let ModelError::Hub { source, .. } = &error else { return error };
    match source.downcast_ref::<ApiError>() {
        Some(ApiError::IoError(io)) if io.kind() == std::io::ErrorKind::StorageFull => {
            ModelError::DiskFull { path: "the cache".into() }
        }
        _ => error,
    }
}

fn verify(file: &HubFile, path: &Path, blob: &Path, sha256: Option<&str>) -> Result<(), ModelError> {
    let Some(expected) = sha256 else { return Ok(()) };
    let found = checksum::of_file(path)?;
    if found != expected {
        // Both are removed, because the link would point nowhere, and the bytes would be used as if they were valid.
        for path in [path, blob] {
            fs::remove_file(path).map_err(|error| ModelError::io("remove", path, error))?;
        }
        return Err(ModelError::Checksum { what: file.to_string(), expected: expected.to_owned(), found });
    }
    checksum::record(path, &found)
}

// === impl Counter ===

impl hf_hub::api::Progress for Counter {
    fn init(&mut self, _size: usize, _filename: &str) {
        self.bytes.store(0, Ordering::Relaxed);
    }

    fn update(&mut self, size: usize) {
        self.bytes.fetch_add(size as u64, Ordering::Relaxed);
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;

    use super::*;
    use crate::models::{Access, Silent};

    /// A hub that serves one file and may cut responses short.
    struct Hub {
        endpoint: String,
        ranges: Arc<Mutex<Vec<(usize, usize)>>>,
    }

    fn hub(bytes: Vec<u8>, etag: &str, cut_after: Vec<usize>) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let (seen, etag) = (Arc::clone(&ranges), etag.to_owned());
        let mut cuts = cut_after.into_iter();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(stream.unwrap(), &bytes, &etag, &mut cuts, &seen);
            }
        });
        Hub { endpoint, ranges }
    }

    fn answer(
        mut stream: TcpStream,
        bytes: &[u8],
        etag: &str,
        cuts: &mut impl Iterator<Item = usize>,
        seen: &Mutex<Vec<(usize, usize)>>,
    ) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        assert_eq!(lines.next().unwrap()?, "GET /owner/repo/resolve/main/q4/small.gguf HTTP/1.1");
        let mut range = (0, bytes.len());
        for line in lines {
            let line = line?.to_ascii_lowercase();
            if let Some((from, to)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
                range = (from.parse().unwrap(), to.parse().map_or(bytes.len(), |to: usize| to + 1));
            }
            if line.is_empty() {
                break;
            }
        }
        seen.lock().unwrap().push(range);
        let body = &bytes[range.0..range.1];
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nx-repo-commit: c0ffee\r\netag: \"{etag}\"\r\ncontent-length: {}\r\n\
             content-range: bytes {}-{}/{}\r\nconnection: close\r\n\r\n",
            body.len(),
            range.0,
            range.1 - 1,
            bytes.len()
        )?;
        // Only responses with the file itself are cut, not the response of one byte from which the library learns the
        // size.
        let cut = if body.len() > 1 { cuts.next().unwrap_or(usize::MAX) } else { usize::MAX };
        stream.write_all(&body[..cut.min(body.len())])
    }

    fn file() -> HubFile {
        HubFile { repository: "owner/repo".to_owned(), file: "q4/small.gguf".to_owned() }
    }

    fn cache(folder: &Path, hub: &Hub) -> Cache {
        Cache::new(folder.to_owned(), Access { hub_endpoint: Some(hub.endpoint.clone()), ..Access::default() })
    }

    fn model() -> (Vec<u8>, String) {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i * 31) as u8).collect();
        let sha256 = checksum::copy(&mut bytes.as_slice(), &mut std::io::sink(), u64::MAX, &mut |_| Ok(())).unwrap().1;
        (bytes, sha256)
    }

    #[test]
    fn a_file_is_fetched_checked_and_then_taken_from_the_cache() {
        let (bytes, sha256) = model();
        let hub = hub(bytes.clone(), &sha256, vec![]);
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), &hub);
        let path = fetch(&file(), &cache, &mut Silent).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let asked = hub.ranges.lock().unwrap().len();
        assert_eq!(fetch(&file(), &cache, &mut Silent).unwrap(), path);
        assert_eq!(hub.ranges.lock().unwrap().len(), asked, "the second time needs no network");
        let listed = cache.list();
        assert_eq!((listed[0].name.as_str(), listed[0].sha256.as_deref()), ("small", Some(sha256.as_str())));
    }

    #[test]
    fn an_interrupted_fetch_goes_on_where_it_stopped() {
        let (bytes, sha256) = model();
        let hub = hub(bytes.clone(), &sha256, vec![120_000]);
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), &hub);
        let error = fetch(&file(), &cache, &mut Silent).unwrap_err();
        assert!(matches!(error, ModelError::Hub { .. }), "{error}");
        assert_eq!(cache.list(), []);
        let path = fetch(&file(), &cache, &mut Silent).unwrap();
        assert_eq!(fs::read(path).unwrap(), bytes);
        assert_eq!(*hub.ranges.lock().unwrap().last().unwrap(), (120_000, 200_000));
    }

    #[test]
    fn a_part_that_was_complete_is_finished() {
        let (bytes, sha256) = model();
        let hub = hub(bytes.clone(), &sha256, vec![]);
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), &hub);
        let blobs = folder.path().join("hub/models--owner--repo/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{sha256}.part")), &bytes).unwrap();
        assert_eq!(fs::read(fetch(&file(), &cache, &mut Silent).unwrap()).unwrap(), bytes);
        assert_eq!(*hub.ranges.lock().unwrap().last().unwrap(), (199_999, 200_000));
    }

    #[test]
    fn a_file_with_another_checksum_is_removed() {
        let (bytes, _) = model();
        let hub = hub(bytes, &"0".repeat(64), vec![]);
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), &hub);
        let error = fetch(&file(), &cache, &mut Silent).unwrap_err();
        assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
        assert_eq!(cache.list(), []);
    }

    #[test]
    fn an_unreachable_hub_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let hub = Hub { endpoint: format!("http://{gone}"), ranges: Arc::default() };
        let error = fetch(&file(), &cache(folder.path(), &hub), &mut Silent).unwrap_err();
        assert!(error.to_string().contains(&format!("hf:owner/repo/q4/small.gguf from http://{gone}")), "{error}");
    }
}
