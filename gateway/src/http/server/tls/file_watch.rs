//! Notices that the files of a pair have changed, and reads them once they have stayed the same for a while.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::pair::{self, Pair};
use crate::http::server::tls_source::{TlsError, TlsFiles};

/// The identity and state of a file: device, inode, size, and the times of its last changes. Following links, so that a
/// link that points elsewhere is noticed, too. `None` if there is no such file.
type Stamp = Option<[i64; 7]>;

/// The files of a pair, and what they were when looked at.
#[derive(Debug, Clone)]
pub(super) struct FileWatch {
    files: TlsFiles,
    /// The stamps of the pair that was read last, used or not.
    read: [Stamp; 2],
    /// The stamps at the last look.
    seen: [Stamp; 2],
}

// === impl FileWatch ===

impl FileWatch {
    /// Watches the pair in `files`, which is read after this call.
    pub(super) fn new(files: TlsFiles) -> Self {
        let stamps = stamps(&files);
        Self { files, read: stamps, seen: stamps }
    }

    /// Reads the pair if it has changed since it was read, and is the same as at the last look. `None` otherwise.
    pub(super) fn look(&mut self) -> Option<Result<Pair, TlsError>> {
        let now = stamps(&self.files);
        let is_at_rest = now == self.seen;
        self.seen = now;
        if !is_at_rest || now == self.read {
            return None;
        }
        self.read = now;
        Some(pair::load(&self.files))
    }
}

fn stamps(files: &TlsFiles) -> [Stamp; 2] {
    [stamp(&files.certificate), stamp(&files.key)]
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    let [seconds, nanos, changed, changed_nanos] = times;
    Some([found.dev() as i64, found.ino() as i64, found.size() as i64, seconds, nanos, changed, changed_nanos])
}
