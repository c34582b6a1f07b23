//! Fetches a model file from any web server that answers range requests, piece by piece: each piece is bounded in time,
//! and an interrupted fetch goes on where it stopped, if the file is still the same.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::cache::{Cache, create_folder};
use super::error::ModelError;
use super::file_url::FileUrl;
use super::hub_reader::{HubReader, Piece};
use super::progress::Progress;
use super::{checksum, choice, space};

/// Bytes of a piece: few enough for a slow line within the bound of one request, and enough that a fast one is not held
/// up by requests.
const PIECE_BYTES: u64 = 8 << 20;
/// Longest file, in bytes: eight times that of the largest known model.
const FILE_BYTES_MAX: u64 = 16 << 40;
/// Characters of the digest that tells one state of a file from another.
const STATE_CHARACTERS: usize = 16;

/// The file of `url`, or the first part of the model that it is a part of. What is missing of it is fetched.
pub(super) fn fetch(url: &FileUrl, cache: &Cache, progress: &mut dyn Progress) -> Result<PathBuf, ModelError> {
    let folder = folder(url, cache);
    let parts: Vec<FileUrl> = choice::parts(url.file()).iter().map(|part| url.beside(part)).collect();
    for part in &parts {
        fetch_one(part, &folder, cache, progress)?;
    }
    Ok(folder.join(url.file()))
}

/// The file of `url`, if it was fetched before.
pub(super) fn cached(url: &FileUrl, cache: &Cache) -> Option<PathBuf> {
    let folder = folder(url, cache);
    let all = choice::parts(url.file()).iter().all(|part| folder.join(part).is_file());
    all.then(|| folder.join(url.file()))
}

fn folder(url: &FileUrl, cache: &Cache) -> PathBuf {
    cache.models_folder().join(url.folder_name())
}

fn fetch_one(url: &FileUrl, folder: &Path, cache: &Cache, progress: &mut dyn Progress) -> Result<(), ModelError> {
    let path = folder.join(url.file());
    if path.is_file() {
        return Ok(());
    }
    create_folder(folder)?;
    let _lock = cache.lock(&format!("{}--{}", url.folder_name(), url.file()), progress)?;
    if path.is_file() {
        return Ok(());
    }
    let reader = HubReader::of(url);
    // One byte tells the length and the state of the file.
    let first = reader.range(url, 0, 1)?;
    if first.file_bytes > FILE_BYTES_MAX {
        let expected = format!("a file of at most {FILE_BYTES_MAX} bytes");
        return Err(reader.wrong(&url.to_string(), expected, first.file_bytes.to_string()));
    }
    let part = folder.join(format!("{}.{}.part", url.file(), state(&first)));
    let file = File::options().create(true).append(true).open(&part);
    let mut file = file.map_err(|error| ModelError::io("write", &part, error))?;
    let mut had = file.metadata().map_err(|error| ModelError::io("read", &part, error))?.len();
    if had > first.file_bytes {
        file.set_len(0).map_err(|error| ModelError::io("shorten", &part, error))?;
        had = 0;
    }
    space::check(folder, first.file_bytes - had)?;
    progress.begin(&format!("fetching {}", url.file()), first.file_bytes);
    let fetched = fetch_rest(&reader, url, &first, (had, part.as_path(), &mut file), progress);
    progress.end();
    fetched?;
    let sha256 = checksum::of_file(&part)?;
    fs::rename(&part, &path).map_err(|error| ModelError::io("rename", &part, error))?;
    checksum::record(&path, &sha256)?;
    progress.message(&format!("SHA-256 {sha256}  {}", url.file()));
    Ok(())
}

/// Appends what follows the first `done` bytes of the file in the state `first`.
fn fetch_rest(
    reader: &HubReader,
    url: &FileUrl,
    first: &Piece,
    (mut done, part, file): (u64, &Path, &mut File),
    progress: &mut dyn Progress,
) -> Result<(), ModelError> {
    progress.at(done);
    while done < first.file_bytes {
        if progress.cancelled() {
            return Err(ModelError::Cancelled);
        }
        let piece = reader.range(url, done, PIECE_BYTES.min(first.file_bytes - done))?;
        if state(&piece) != state(first) {
            let expected = format!("the file of {} bytes as it was at the start of the fetch", first.file_bytes);
            return Err(reader.wrong(&url.to_string(), expected, format!("another of {} bytes", piece.file_bytes)));
        }
        file.write_all(&piece.bytes).map_err(|error| ModelError::io("write", part, error))?;
        done += piece.bytes.len() as u64;
        progress.at(done);
    }
    Ok(())
}

/// A digest of what the server says of the file's state.
fn state(piece: &Piece) -> String {
    let digest = Sha256::digest(format!("{} {}", piece.file_bytes, piece.state));
    checksum::hex(&digest)[..STATE_CHARACTERS].to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::models::{Access, Silent, resolve};

    /// A server of one file.
    #[derive(Clone)]
    struct Served {
        bytes: Vec<u8>,
        etag: &'static str,
        /// True if it answers ranges.
        ranges: bool,
        /// Range requests that it answers before it closes connections unanswered.
        answers: usize,
        asked: Vec<u64>,
    }

    fn serve(served: Served) -> (String, Arc<Mutex<Served>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/models/tiny.gguf?download=true", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(served));
        let state = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(stream.unwrap(), &state);
            }
        });
        (url, shared)
    }

    fn answer(mut stream: TcpStream, served: &Mutex<Served>) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        assert_eq!(lines.next().unwrap()?, "GET /models/tiny.gguf?download=true HTTP/1.1");
        let mut range = None;
        for line in lines {
            let line = line?.to_ascii_lowercase();
            assert!(!line.starts_with("authorization"), "the hub's token is not for others");
            if let Some((from, to)) = line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-')) {
                range = Some((from.parse::<u64>().unwrap(), to.parse::<u64>().unwrap()));
            }
            if line.is_empty() {
                break;
            }
        }
        let mut served = served.lock().unwrap();
        let (from, to) = range.expect("a range");
        served.asked.push(from);
        if served.answers == 0 {
            return Ok(());
        }
        served.answers -= 1;
        let Served { bytes, etag, ranges, .. } = &*served;
        let to = (to + 1).min(bytes.len() as u64);
        let body = if *ranges { &bytes[from as usize..to as usize] } else { bytes };
        let status = if *ranges { "206 Partial Content" } else { "200 OK" };
        write!(
            stream,
            "HTTP/1.1 {status}\r\netag: {etag}\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\n\
             connection: close\r\n\r\n",
            body.len(),
            to - 1,
            bytes.len()
        )?;
        stream.write_all(body)
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let access = Access { hub_token: Some("hf_secret".to_owned()), ..Access::default() };
        let cache = Cache::new(folder.path().join("cache"), access);
        (folder, cache)
    }

    fn fetched(url: &str, cache: &Cache) -> Result<PathBuf, String> {
        resolve(Some(url), cache, &mut Silent).map_err(|error| {
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        })
    }

    fn served() -> Served {
        let bytes = (0..(2 * PIECE_BYTES + 12_345)).map(|index| (index * 31 % 251) as u8).collect();
        Served { bytes, etag: "\"one\"", ranges: true, answers: usize::MAX, asked: Vec::new() }
    }

    #[test]
    fn an_interrupted_fetch_goes_on_where_it_stopped_and_its_sha256_is_recorded() {
        let (url, server) = serve(Served { answers: 2, ..served() });
        let (_folder, cache) = cache();
        let error = fetched(&url, &cache).unwrap_err();
        assert!(error.contains("tiny.gguf"), "{error}");
        assert_eq!(cache.list(), [], "half a file is no model");
        server.lock().unwrap().answers = usize::MAX;
        server.lock().unwrap().asked.clear();
        let path = fetched(&url, &cache).unwrap();
        assert_eq!(server.lock().unwrap().asked, [0, PIECE_BYTES, 2 * PIECE_BYTES]);
        let bytes = server.lock().unwrap().bytes.clone();
        assert!(fs::read(&path).unwrap() == bytes);
        assert_eq!(checksum::recorded(&path), Some(checksum::hex(&Sha256::digest(&bytes))));
        assert_eq!(cache.list()[0].name, "tiny");
        server.lock().unwrap().answers = 0;
        assert_eq!(fetched(&url, &cache).unwrap(), path, "the second time needs no network");
    }

    #[test]
    fn a_file_that_changed_is_fetched_anew() {
        let (url, server) = serve(Served { answers: 2, ..served() });
        let (_folder, cache) = cache();
        fetched(&url, &cache).unwrap_err();
        let changed = Served { etag: "\"two\"", bytes: vec![7; 100], ..served() };
        *server.lock().unwrap() = changed;
        assert_eq!(fs::read(fetched(&url, &cache).unwrap()).unwrap(), [7; 100]);
    }

    #[test]
    fn a_server_without_ranges_and_an_address_of_no_model_are_refused() {
        let (url, _server) = serve(Served { ranges: false, ..served() });
        let (_folder, cache) = cache();
        let error = fetched(&url, &cache).unwrap_err();
        assert!(error.contains("expected status 206") && error.contains("found status 200"), "{error}");
        let error = fetched("https://example.org/model.bin", &cache).unwrap_err();
        assert!(error.contains("http(s)://HOST/PATH/NAME.gguf"), "{error}");
    }
}
