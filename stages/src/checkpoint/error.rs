//! The errors of opening a checkpoint, and of files that change afterwards.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::gguf::GgufError;
use crate::safetensors::SafetensorsError;

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

/// Errors of files that cannot be opened as a model.
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
    #[error(
        "cannot use {} as a model: expected a GGUF file or a folder with config.json, found {found}",
        path.display()
    )]
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
    /// Its safetensors header is damaged or unsupported.
    #[error("{} is not a usable safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: SafetensorsError,
    },
    /// A folder's configuration or tensors are not those of a supported model.
    #[error("{} is not usable: {field}: expected {expected}, found {found}", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// The key or the tensor.
        field: String,
        /// The accepted values.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A part of a split model is missing, or does not belong to the others.
    #[error("{} is not the expected part of a split model: expected {expected}, found {found}", path.display())]
    Split {
        /// The file.
        path: PathBuf,
        /// The accepted values.
        expected: String,
        /// The value found.
        found: String,
    },
}

// === impl FileStamp ===

impl FileStamp {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { bytes: metadata.len(), modified: metadata.modified()? })
    }
}

/// Modification time of a file, as `date -d @…` reads it.
fn seconds(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("at {}.{:09}", since.as_secs(), since.subsec_nanos())
}
