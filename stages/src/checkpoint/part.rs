//! One open file of a checkpoint.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{FileChanged, FileStamp, OpenError};

/// An open file. It stays open, so replacing the file at its path does not change the bytes that are read.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) stamp: FileStamp,
    /// True if parts of it are still to be written, so that its time of modification says nothing.
    pub(super) is_partial: bool,
}

// === impl Part ===

impl Part {
    /// Opens the regular file at `path`, which must not be empty.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be read, is no regular file, or is empty.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let read = |cause| OpenError::Read { path: path.to_owned(), cause };
        let not_a_model_file = |found| OpenError::NotAModelFile { path: path.to_owned(), found };

        // Checked before opening, because opening a pipe would wait for its other end.
        let kind = std::fs::metadata(path).map_err(read)?;
        if kind.is_dir() {
            return Err(not_a_model_file("a folder without it"));
        } else if !kind.is_file() {
            return Err(not_a_model_file("a device, pipe or socket"));
        }
        let file = File::open(path).map_err(read)?;
        // Read before the first byte of the file, so that `check_unchanged` detects every later write.
        let stamp = FileStamp::of(&file).map_err(read)?;
        if stamp.bytes == 0 {
            return Err(not_a_model_file("an empty one"));
        }
        Ok(Self { path: path.to_owned(), file, stamp, is_partial: false })
    }

    /// Checks that the open file still has the contents it was opened with, by its length and modification time. Of a
    /// partial file, only the length says something.
    pub(super) fn check_unchanged(&self) -> Result<(), FileChanged> {
        let Self { path, file, stamp, is_partial } = self;
        let found = FileStamp::of(file).map_err(|cause| FileChanged::Unreadable { path: path.clone(), cause })?;
        if found == *stamp || (*is_partial && found.bytes == stamp.bytes) {
            return Ok(());
        }
        Err(FileChanged::Written { path: path.clone(), expected: *stamp, found })
    }
}
