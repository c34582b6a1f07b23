//! A model file: opened, its header checked, nothing mapped.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use schema::record::{KvRoom, ModelRecord};
use schema::{Fingerprint, LayerRange};

use super::fingerprint::fingerprint;
use super::mapping::Mapping;
use super::place::{EMBEDDING, OUTPUT};
use super::record::{self, ModelError};
use super::shard::{MapError, Shard};
use crate::format::Format;
use crate::gguf::{GgufError, Header, Keep, TensorInfo};

/// A GGUF file with a checked header. Cheap to clone; the file stays open, so a path that is replaced meanwhile does
/// not change what is read.
#[derive(Debug, Clone)]
pub struct ModelFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    header: Header,
    fingerprint: Fingerprint,
    written: Written,
}

/// What the system says of a file's contents: who writes the file changes one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    bytes: u64,
    at: SystemTime,
}

/// The contents of a model file are not those that were opened.
#[derive(Debug, thiserror::Error)]
pub enum FileChanged {
    /// Somebody wrote it.
    #[error(
        "the model file {} changed while its weights were in use: expected {} bytes, written {}, found {} bytes, written \
         {}; put the right file there and start again",
        path.display(), expected.0, seconds(*.expected), found.0, seconds(*.found)
    )]
    Written {
        /// The file.
        path: PathBuf,
        /// Bytes and time when it was opened.
        expected: (u64, SystemTime),
        /// Bytes and time now.
        found: (u64, SystemTime),
    },
    /// The system does not tell any more.
    #[error("cannot look at the model file {}", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// A file that cannot serve as a model.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system does not let us read it.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is not a file with contents.
    #[error("cannot use {} as a model: expected a GGUF file, found {found}", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// Its header is damaged or unsupported.
    #[error("{} is not a usable GGUF file", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: GgufError,
    },
}

// === impl ModelFile ===

impl ModelFile {
    /// Opens the file and checks its header. The vocabulary is checked but not kept, since a stage has no use for it.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be read or is not a usable GGUF file.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let read = |cause| OpenError::Read { path: path.to_owned(), cause };
        let not_a_file = |found| OpenError::NotAFile { path: path.to_owned(), found };

        // Asked before opening: opening a pipe would wait for its other end.
        let kind = std::fs::metadata(path).map_err(read)?;
        if kind.is_dir() {
            return Err(not_a_file("a directory"));
        } else if !kind.is_file() {
            return Err(not_a_file("a device, pipe or socket"));
        }
        let file = File::open(path).map_err(read)?;
        // Before the first byte is read: what is written meanwhile shows later.
        let written = Written::of(&file).map_err(read)?;
        let header = parse(&file, path, Keep::NoVocabulary)?;
        let fingerprint = fingerprint(&file, &header).map_err(read)?;
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), file, header, fingerprint, written }) })
    }

    /// The header, without the arrays of `tokenizer.*`.
    pub fn header(&self) -> &Header {
        &self.inner.header
    }

    /// The header with the vocabulary, read from the file again.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be read any more or has been damaged.
    pub fn vocabulary_header(&self) -> Result<Header, OpenError> {
        parse(&self.inner.file, &self.inner.path, Keep::Everything)
    }

    /// What tells this file from others: see the recipe in `fingerprint.rs`.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.inner.fingerprint
    }

    /// Looks whether the open file still has the contents it was opened with, by its length and the time it was written
    /// last. Another file under the same path is no change: what is mapped is the one that was opened.
    ///
    /// # Errors
    /// [`FileChanged`] says what was expected and found.
    pub fn check_unchanged(&self) -> Result<(), FileChanged> {
        let Inner { path, file, written, .. } = &*self.inner;
        let found = Written::of(file).map_err(|cause| FileChanged::Gone { path: path.clone(), cause })?;
        if found == *written {
            return Ok(());
        }
        let pair = |written: Written| (written.bytes, written.at);
        Err(FileChanged::Written { path: path.clone(), expected: pair(*written), found: pair(found) })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What to call the model: the file's name without its ending.
    pub fn name(&self) -> String {
        self.inner.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What the cluster needs to know of the model. Its `scratch_bytes` are 0: who computes knows them, and fills them in.
    ///
    /// # Errors
    /// [`ModelError`] when the metadata or the tensors are not those of a language model.
    pub fn record(&self, room: KvRoom, stages_min: u32) -> Result<ModelRecord, ModelError> {
        record::record(self.header(), self.name(), self.fingerprint().clone(), room, stages_min)
    }

    /// The matrices that tokens are multiplied with, wherever they belong; an embedding table that is only looked up is
    /// none of them.
    pub fn matrices(&self) -> impl Iterator<Item = &TensorInfo> {
        let looked_up = self.header().tensor(OUTPUT).is_some();
        let infos = self.header().tensors.iter();
        infos.filter(move |info| info.dims.len() > 1 && !(looked_up && info.name == EMBEDDING))
    }

    /// The formats of [`Self::matrices`]; each once.
    pub fn matrix_formats(&self) -> Vec<Format> {
        let formats: Vec<_> = self.matrices().map(|info| info.format).collect();
        Format::ALL.into_iter().filter(|format| formats.contains(format)).collect()
    }

    /// Maps what a stage with `layers` needs, and nothing else.
    ///
    /// # Errors
    /// [`MapError`] when the model has no such layers or the system refuses.
    pub fn map(&self, layers: LayerRange) -> Result<Shard, MapError> {
        Shard::map(self.clone(), layers)
    }

    pub(super) fn file(&self) -> &File {
        &self.inner.file
    }
}

// === impl Written ===

impl Written {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { bytes: metadata.len(), at: metadata.modified()? })
    }
}

/// When a file was written, as `date -d @…` reads it.
fn seconds((_, at): (u64, SystemTime)) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("at {}.{:09}", since.as_secs(), since.subsec_nanos())
}

/// Maps the whole file, reads its header, and unmaps it: only the header's pages are ever touched.
fn parse(file: &File, path: &Path, keep: Keep) -> Result<Header, OpenError> {
    let read = |cause| OpenError::Read { path: path.to_owned(), cause };
    let bytes = file.metadata().map_err(read)?.len();
    if bytes == 0 {
        return Err(OpenError::NotAFile { path: path.to_owned(), found: "an empty one" });
    }
    let mapping = Mapping::new(file, 0..bytes, &path.to_string_lossy()).map_err(read)?;
    Header::parse_keeping(mapping.bytes(), keep).map_err(|cause| OpenError::Gguf { path: path.to_owned(), cause })
}
