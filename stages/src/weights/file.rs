//! An open model file with a checked header and nothing mapped.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use schema::Fingerprint;
use schema::record::{KvRoom, ModelRecord};

use super::fingerprint::fingerprint;
use super::mapping::Mapping;
use super::record::{self, NotALanguageModel};
use super::tensor_role::{EMBEDDING, OUTPUT};
use crate::format::Format;
use crate::gguf::{GgufError, Header, Keep, TensorInfo};

/// A GGUF file with a checked header. Cheap to clone. The file stays open, so replacing the file at its path does not
/// change the bytes that are read.
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
    stamp: FileStamp,
}

/// Length and modification time of a file. Writing the file changes one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// Length in bytes.
    pub bytes: u64,
    /// Modification time.
    pub modified: SystemTime,
}

/// A model file that changed after it was opened, or whose state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileChanged {
    /// The file was written.
    #[error(
        "the model file {} changed while its weights were in use: expected {} bytes, written {}, found {} bytes, \
         written {}; put the right file there and start again",
        path.display(), expected.bytes, seconds(expected.modified), found.bytes, seconds(found.modified)
    )]
    Written {
        /// The file.
        path: PathBuf,
        /// The file at opening.
        expected: FileStamp,
        /// The file now.
        found: FileStamp,
    },
    /// The system does not return the file's state.
    #[error("cannot read the state of the model file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
}

/// Errors of a file that cannot be opened as a model.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system cannot read it.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// It is not a regular file, or it is empty.
    #[error("cannot use {} as a model: expected a GGUF file, found {found}", path.display())]
    NotAModelFile {
        /// The path.
        path: PathBuf,
        /// The kind of file found.
        found: &'static str,
    },
    /// Its header is damaged or unsupported.
    #[error("{} is not a usable GGUF file", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: GgufError,
    },
}

// === impl ModelFile ===

impl ModelFile {
    /// Opens the file and checks its header. The vocabulary is checked but not kept, because a stage does not need it.
    ///
    /// # Errors
    /// [`OpenError`] when the file cannot be read or is not a usable GGUF file.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let read = |cause| OpenError::Read { path: path.to_owned(), cause };
        let not_a_model_file = |found| OpenError::NotAModelFile { path: path.to_owned(), found };

        // Checked before opening, because opening a pipe would wait for its other end.
        let kind = std::fs::metadata(path).map_err(read)?;
        if kind.is_dir() {
            return Err(not_a_model_file("a directory"));
        } else if !kind.is_file() {
            return Err(not_a_model_file("a device, pipe or socket"));
        }
        let file = File::open(path).map_err(read)?;
        // Read before the first byte of the file, so that `check_unchanged` detects every later write.
        let stamp = FileStamp::of(&file).map_err(read)?;
        let header = parse(&file, path, Keep::NoVocabulary)?;
        let fingerprint = fingerprint(&file, &header).map_err(read)?;
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), file, header, fingerprint, stamp }) })
    }

    /// The header, without the arrays of `tokenizer.*`.
    pub fn header(&self) -> &Header {
        &self.inner.header
    }

    /// The header with the vocabulary, read from the file again.
    ///
    /// # Errors
    /// [`OpenError`] when the file can no longer be read or has been damaged.
    pub fn vocabulary_header(&self) -> Result<Header, OpenError> {
        parse(&self.inner.file, &self.inner.path, Keep::Everything)
    }

    /// Digest that distinguishes this file from others. `fingerprint.rs` describes its input.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.inner.fingerprint
    }

    /// Checks that the open file still has the contents it was opened with, by its length and modification time.
    /// Another file under the same path is no change, because the opened file is the one that is mapped.
    ///
    /// # Errors
    /// [`FileChanged`] with the expected and the found state.
    pub fn check_unchanged(&self) -> Result<(), FileChanged> {
        let Inner { path, file, stamp, .. } = &*self.inner;
        let found = FileStamp::of(file).map_err(|cause| FileChanged::Unreadable { path: path.clone(), cause })?;
        if found == *stamp {
            return Ok(());
        }
        Err(FileChanged::Written { path: path.clone(), expected: *stamp, found })
    }

    /// The path that it was opened at.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The model's name: the file's name without its extension.
    pub fn name(&self) -> String {
        self.inner.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The cluster's record of the model. Its `scratch_bytes` are 0: [`crate::model_record()`] computes and fills them
    /// in.
    ///
    /// # Errors
    /// [`NotALanguageModel`] when the metadata or the tensors are not those of a language model.
    pub fn record(&self, room: KvRoom, stages_min: u32) -> Result<ModelRecord, NotALanguageModel> {
        record::record(self.header(), self.name(), self.fingerprint().clone(), room, stages_min)
    }

    /// The matrices that activations are multiplied with, in all parts of the model. An embedding table that is used
    /// for lookup only is left out.
    pub fn matrices(&self) -> impl Iterator<Item = &TensorInfo> {
        let looked_up = self.header().tensor(OUTPUT).is_some();
        let infos = self.header().tensors.iter();
        infos.filter(move |info| info.dims.len() > 1 && !(looked_up && info.name == EMBEDDING))
    }

    /// The formats of [`Self::matrices`], each once.
    pub fn matrix_formats(&self) -> Vec<Format> {
        let formats: Vec<_> = self.matrices().map(|info| info.format).collect();
        Format::ALL.into_iter().filter(|format| formats.contains(format)).collect()
    }

    pub(super) fn file(&self) -> &File {
        &self.inner.file
    }
}

// === impl FileStamp ===

impl FileStamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { bytes: metadata.len(), modified: metadata.modified()? })
    }
}

/// Modification time of a file, as `date -d @…` reads it.
fn seconds(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("at {}.{:09}", since.as_secs(), since.subsec_nanos())
}

/// Maps the whole file, reads its header, and unmaps it: only the header's pages are ever touched.
fn parse(file: &File, path: &Path, keep: Keep) -> Result<Header, OpenError> {
    let read = |cause| OpenError::Read { path: path.to_owned(), cause };
    let bytes = file.metadata().map_err(read)?.len();
    if bytes == 0 {
        return Err(OpenError::NotAModelFile { path: path.to_owned(), found: "an empty one" });
    }
    let mapping = Mapping::new(file, 0..bytes, &path.to_string_lossy()).map_err(read)?;
    Header::parse_keeping(mapping.bytes(), keep).map_err(|cause| OpenError::Gguf { path: path.to_owned(), cause })
}
