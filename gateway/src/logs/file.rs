//! A log file that starts anew when it is full. The one before is kept beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::limits::FILE_BYTES_MAX;

/// The ending of the file before.
pub(super) const OLDER: &str = "older";

/// A file that lines are appended to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

// === impl LogFile ===

impl LogFile {
    /// Opens the file at `path`, which only its owner can read.
    ///
    /// # Errors
    /// The operating system's reason.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn start_anew(&mut self) -> io::Result<()> {
        fs::rename(&self.path, self.path.with_extension(OLDER))?;
        self.file = open(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

impl Write for LogFile {
    /// Writes a line. It comes in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes + line.len() as u64 > FILE_BYTES_MAX {
            self.start_anew()?;
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_starts_anew_and_the_one_before_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stage.7.log");
        let mut file = LogFile::open(path.clone()).unwrap();
        let line = [b'x'; 1 << 16];
        for _ in 0..3 * FILE_BYTES_MAX / line.len() as u64 {
            file.write_all(&line).unwrap();
        }
        let sizes = [path.clone(), path.with_extension(OLDER)].map(|path| fs::metadata(path).unwrap().len());
        assert!(sizes.into_iter().all(|size| size > 0 && size <= FILE_BYTES_MAX), "{sizes:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
