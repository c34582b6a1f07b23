//! A machine's home: its processes see no other user's files, and it has a cache of its own.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::line_process::LineProcess;

/// Tries to read a map. A process replaces it whole, and may be about to make the first one.
const READS_MAX: u32 = 20;
const READ_PAUSE: Duration = Duration::from_millis(10);

/// A home.
pub(crate) struct Home(pub(crate) tempfile::TempDir);

// === impl Home ===

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::Builder::new().prefix("bl").tempdir_in("/tmp").unwrap())
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        self.settle(&mut command).args(words);
        command
    }

    /// Lets `command` run in this home.
    pub(crate) fn settle<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let home = self.0.path();
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", home).env("TMPDIR", home);
        command.env("XDG_RUNTIME_DIR", home).env("XDG_CACHE_HOME", home.join("cache"))
    }

    pub(crate) fn baton(&self, words: &[&str]) -> LineProcess {
        LineProcess::spawn(self.command(words))
    }

    /// The folder with the model of which parts are here.
    pub(crate) fn layers(&self) -> Option<PathBuf> {
        let folders = std::fs::read_dir(self.0.path().join("cache/baton/layers")).ok()?;
        folders.flatten().map(|entry| entry.path()).next()
    }

    /// Bytes of the model that the map says are here. None while there is no map.
    pub(crate) fn mapped(&self) -> u64 {
        for _ in 0..READS_MAX {
            let Some(folder) = self.layers() else { return 0 };
            let map = std::fs::read(folder.join("map.json")).ok();
            let Some(map) = map.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok()) else {
                std::thread::sleep(READ_PAUSE);
                continue;
            };
            let ranges = map["parts"][0].as_array().cloned().unwrap_or_default();
            return ranges.iter().map(|range| range[1].as_u64().unwrap() - range[0].as_u64().unwrap()).sum();
        }
        0
    }

    /// Bytes that the files of its cache take on the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        fn of(path: &Path) -> u64 {
            let metadata = std::fs::symlink_metadata(path).unwrap();
            let inner = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| of(&entry.path()));
            inner.sum::<u64>() + if metadata.is_file() { metadata.blocks() * 512 } else { 0 }
        }
        of(&self.0.path().join("cache"))
    }
}
