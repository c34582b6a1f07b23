//! The headers of a model's files at a hub, fetched without their weights.
//!
//! A header is written to the start of a file of the model's own length in a folder of its own, the rest of which takes
//! no room on the disk. So the header is read there, and checked, as that of a model on this machine.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use stages::safetensors::{SafetensorsHeader, SafetensorsIndex};
use tempfile::TempDir;

use super::cache::Cache;
use super::catalogue::{Entry, Origin};
use super::choice::{self, Choice};
use super::error::ModelError;
use super::file_url::FileUrl;
use super::growing_header::{FIRST_BYTES, HeaderFault, HeaderStep};
use super::hub_reader::{HubReader, RemoteFile};
use super::limits::{FILE_BYTES_MAX, FILES_MAX, GGUF_HEADER_BYTES_MAX};
use super::source::{HubFile, HubRepository};
use super::{origin, repository};

/// Longest configuration, in bytes.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Headers that are fetched at the same time.
const AT_ONCE: usize = 8;
/// Names of a folder's files.
const CONFIG: &str = "config.json";
const INDEX: &str = SafetensorsIndex::NAME;

/// The headers of a model, as files that have nothing else. Dropping it removes them.
#[derive(Debug)]
pub struct RemoteHeader {
    _folder: TempDir,
    path: PathBuf,
    source: String,
    bytes: u64,
}

/// A fetch of headers into a folder.
struct Fetch<'a> {
    hub: &'a HubReader,
    repository: &'a str,
    folder: &'a Path,
    /// Bytes that were fetched.
    bytes: AtomicU64,
}

// === impl RemoteHeader ===

impl RemoteHeader {
    /// The headers of the model that `file` is, or is a part of. Blocking.
    ///
    /// # Errors
    /// [`ModelError`] if the hub does not answer, has no such file, does not answer ranges, or if a header is damaged.
    pub fn of_file(file: &HubFile, cache: &Cache) -> Result<Self, ModelError> {
        let hub = HubReader::new(cache);
        let choice = Choice::Gguf(choice::parts(&file.file));
        Self::fetch(&hub, &file.repository, choice, file.to_string())
    }

    /// The headers of the model that the file at `url` is, or is a part of. Blocking.
    ///
    /// # Errors
    /// As [`Self::of_file`].
    pub fn of_url(url: &FileUrl) -> Result<Self, ModelError> {
        let hub = HubReader::of(url);
        let folder = temporary()?;
        let fetch = Fetch { hub: &hub, repository: "", folder: folder.path(), bytes: AtomicU64::new(0) };
        let parts = choice::parts(url.file());
        parts.iter().try_for_each(|part| fetch.gguf(&url.beside(part)))?;
        let bytes = fetch.bytes.into_inner();
        let path = folder.path().join(parts.first().map_or("", String::as_str));
        Ok(Self { path, source: url.to_string(), bytes, _folder: folder })
    }

    /// The headers of the model that `repository` names. Blocking.
    ///
    /// # Errors
    /// As [`Self::of_file`], and [`ModelError::NoSuchModel`].
    pub fn of_repository(repository: &HubRepository, cache: &Cache) -> Result<Self, ModelError> {
        let hub = HubReader::new(cache);
        let files = repository::list(repository, &hub)?;
        let choice = repository::chosen(repository, &files)?;
        Self::fetch(&hub, &repository.repository, choice, repository.to_string())
    }

    /// The headers of a listed model, of the first of its hubs that has the listed file. Blocking.
    ///
    /// # Errors
    /// [`ModelError::NoSource`] with the reason of each source.
    pub fn of_entry(entry: &Entry, cache: &Cache) -> Result<Self, ModelError> {
        let mut reasons = Vec::new();
        for source in &entry.sources {
            let header = match source {
                Origin::Hub(hub) => Self::of_file(&origin::file(hub), cache).and_then(|header| {
                    origin::check_header(entry, hub, &header.path)?;
                    Ok(header)
                }),
                Origin::Package(_) => {
                    reasons.push(format!("{source}: a package is fetched whole"));
                    continue;
                }
            };
            match header {
                Ok(header) => return Ok(header),
                Err(error) => reasons.push(format!("{source}: {}", origin::chain(&error))),
            }
        }
        Err(ModelError::NoSource { model: entry.name.clone(), reasons: reasons.join("; ") })
    }

    /// The file or the folder to open.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The place where the model is.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Bytes that were fetched.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn fetch(hub: &HubReader, repository: &str, choice: Choice, source: String) -> Result<Self, ModelError> {
        let folder = temporary()?;
        // A folder's name becomes the model's.
        let place = folder.path().join(repository.rsplit('/').next().unwrap_or(repository));
        fs::create_dir(&place).map_err(|error| ModelError::io("create the folder", &place, error))?;
        let fetch = Fetch { hub, repository, folder: &place, bytes: AtomicU64::new(0) };
        let path = match choice {
            Choice::Gguf(files) => {
                fetch.all(&files, |fetch, file| fetch.gguf(file))?;
                place.join(files.first().map_or("", |first| base_name(first)))
            }
            Choice::Folder(files) => {
                fetch.folder(&files)?;
                place.clone()
            }
        };
        let bytes = fetch.bytes.into_inner();
        Ok(Self { path, source, bytes, _folder: folder })
    }
}

// === impl Fetch ===

impl Fetch<'_> {
    /// Fetches the headers of `files` by `one`, several at the same time.
    fn all(
        &self,
        files: &[String],
        one: impl Fn(&Self, &HubFile) -> Result<(), ModelError> + Sync,
    ) -> Result<(), ModelError> {
        if files.is_empty() || files.len() > FILES_MAX {
            let expected = format!("1 to {FILES_MAX} files");
            return Err(self.hub.wrong(self.repository, expected, files.len().to_string()));
        }
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(files.len()) {
                scope.spawn(|| {
                    while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = one(self, &self.file(file)) {
                            // The others end with the file that they are at.
                            next.store(files.len(), Ordering::Relaxed);
                            failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                        }
                    }
                });
            }
        });
        failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Fetches the header of a GGUF file, by ranges that grow until it is whole.
    fn gguf(&self, file: &dyn RemoteFile) -> Result<(), ModelError> {
        let mut piece = self.range(file, 0, FIRST_BYTES)?;
        loop {
            let length = piece.bytes.len() as u64;
            let end = match HeaderStep::after(&piece.bytes, piece.file_bytes) {
                Ok(HeaderStep::Whole(header)) => {
                    piece.bytes.truncate(usize::try_from(header).unwrap_or(usize::MAX));
                    return self.write(file, &piece.bytes, piece.file_bytes);
                }
                Ok(HeaderStep::Read { end, .. }) => end,
                Err(HeaderFault::Unsound(error)) => return Err(self.unusable(file, &error)),
                Err(HeaderFault::TooLong { needed }) => {
                    let expected = format!("a header of at most {GGUF_HEADER_BYTES_MAX} bytes");
                    return Err(self.hub.wrong(&file.to_string(), expected, format!("one of at least {needed}")));
                }
            };
            let more = self.range(file, length, end - length)?;
            if more.file_bytes != piece.file_bytes {
                let expected = format!("a file of {} bytes, as before", piece.file_bytes);
                return Err(self.hub.wrong(&file.to_string(), expected, more.file_bytes.to_string()));
            }
            piece.bytes.extend_from_slice(&more.bytes);
        }
    }

    /// Fetches a folder's configuration, list of files, and the headers of those.
    fn folder(&self, files: &[String]) -> Result<(), ModelError> {
        let config = self.hub_file(CONFIG, CONFIG_BYTES_MAX)?;
        self.write(&self.file(CONFIG), &config, config.len() as u64)?;
        if !files.iter().any(|file| file == INDEX) {
            return self.all(&["model.safetensors".to_owned()], Self::safetensors);
        }
        let index = self.hub_file(INDEX, SafetensorsIndex::BYTES_MAX)?;
        self.write(&self.file(INDEX), &index, index.len() as u64)?;
        let list = SafetensorsIndex::parse(&index).map_err(|error| self.unusable(&self.file(INDEX), &error))?;
        let named = list.files();
        if let Some(absent) = named.iter().find(|name| !files.iter().any(|file| file == *name)) {
            let expected = format!("files of {} only", self.repository);
            return Err(self.hub.wrong(&self.file(INDEX).to_string(), expected, format!("{absent:?}")));
        }
        let named: Vec<String> = named.into_iter().map(str::to_owned).collect();
        self.all(&named, Self::safetensors)
    }

    /// Fetches the header of a safetensors file: its length, then exactly itself.
    fn safetensors(&self, file: &HubFile) -> Result<(), ModelError> {
        let mut piece = self.range(file, 0, 8)?;
        let length = <[u8; 8]>::try_from(piece.bytes.as_slice());
        let length = length.map_err(|_| self.hub.wrong(&file.to_string(), "8 bytes".to_owned(), "fewer".to_owned()))?;
        let header = SafetensorsHeader::extent(length, piece.file_bytes);
        let header = header.map_err(|error| self.unusable(file, &error))?;
        if header > 8 {
            piece.bytes.extend_from_slice(&self.range(file, 8, header - 8)?.bytes);
        }
        self.write(file, &piece.bytes, piece.file_bytes)
    }

    fn file(&self, file: &str) -> HubFile {
        HubFile { repository: self.repository.to_owned(), file: file.to_owned() }
    }

    fn hub_file(&self, file: &str, bytes_max: u64) -> Result<Vec<u8>, ModelError> {
        let bytes = self.hub.whole(&self.file(file), bytes_max)?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    fn range(&self, file: &dyn RemoteFile, start: u64, count: u64) -> Result<super::hub_reader::Piece, ModelError> {
        let piece = self.hub.range(file, start, count)?;
        self.bytes.fetch_add(piece.bytes.len() as u64, Ordering::Relaxed);
        if piece.file_bytes > FILE_BYTES_MAX {
            let expected = format!("a file of at most {FILE_BYTES_MAX} bytes");
            return Err(self.hub.wrong(&file.to_string(), expected, piece.file_bytes.to_string()));
        }
        Ok(piece)
    }

    /// Writes a file of `bytes` bytes that begins with `header`, without room for the rest.
    fn write(&self, file: &dyn RemoteFile, header: &[u8], bytes: u64) -> Result<(), ModelError> {
        let path = self.folder.join(base_name(file.path()));
        let written = File::create(&path).and_then(|file| {
            file.write_all_at(header, 0)?;
            file.set_len(bytes)
        });
        written.map_err(|error| ModelError::io("write", path, error))
    }

    fn unusable(&self, file: &dyn RemoteFile, error: &dyn std::error::Error) -> ModelError {
        self.hub.wrong(&file.to_string(), "a sound header".to_owned(), error.to_string())
    }
}

fn temporary() -> Result<TempDir, ModelError> {
    tempfile::tempdir().map_err(|error| ModelError::io("make a folder in", std::env::temp_dir(), error))
}

/// The last part of a path.
fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}
