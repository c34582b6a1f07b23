//! Notices that files have changed, once they have stayed the same for a while. The certificate and its key are read
//! again so, and the file of API keys.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The identity and state of a file: device, inode, size, and the times of its last changes. Following links, so that a
/// link that points elsewhere is noticed, too. `None` if there is no such file.
type Stamp = Option<[i64; 7]>;

/// Files that belong together, and what they were when looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileWatch {
    paths: Vec<PathBuf>,
    /// The stamps of the files that were read last, used or not.
    read: Vec<Stamp>,
    /// The stamps at the last look.
    seen: Vec<Stamp>,
}

// === impl FileWatch ===

impl FileWatch {
    /// Watches the files at `paths`, which are read after this call.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let stamps = stamps(&paths);
        Self { paths, read: stamps.clone(), seen: stamps }
    }

    /// True if the files are to be read: they have changed since that was last so, and are the same as at the last
    /// look.
    pub fn look(&mut self) -> bool {
        let now = stamps(&self.paths);
        let is_at_rest = now == self.seen;
        self.seen.clone_from(&now);
        if !is_at_rest || now == self.read {
            return false;
        }
        self.read = now;
        true
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    paths.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    let [seconds, nanos, changed, changed_nanos] = times;
    Some([found.dev() as i64, found.ino() as i64, found.size() as i64, seconds, nanos, changed, changed_nanos])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed_once_when_it_is_at_rest() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        fs::write(&paths[0], "one").unwrap();
        let mut watch = FileWatch::new(paths.to_vec());
        let mut looks = || [watch.look(), watch.look(), watch.look()];
        assert_eq!(looks(), [false; 3]);
        fs::write(&paths[1], "a new file").unwrap();
        assert_eq!(looks(), [false, true, false]);
        fs::remove_file(&paths[0]).unwrap();
        assert_eq!(looks(), [false, true, false]);
    }
}
