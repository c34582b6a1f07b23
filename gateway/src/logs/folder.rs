//! The folder of a cluster's log files: `<member>.<process>.log`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use schema::ClusterName;

use super::file::{LogFile, OLDER};
use super::limits::PROCESSES_MAX;

/// The folder of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFolder(PathBuf);

/// The file of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberLog {
    /// The stage's name, or the verb.
    pub member: String,
    /// The process id.
    pub pid: u32,
    /// The file.
    pub path: PathBuf,
    changed: SystemTime,
}

// === impl LogFolder ===

impl LogFolder {
    /// The folder of `cluster` below the folder that is kept for baton's state.
    pub fn new(state: &Path, cluster: &ClusterName) -> Self {
        Self(state.join("logs").join(cluster.as_str()))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Opens the file of this process, whose cluster knows it as `member`, and deletes the oldest files beyond their
    /// bound.
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn open(&self, member: &str, pid: u32) -> io::Result<LogFile> {
        fs::create_dir_all(&self.0)?;
        let file = LogFile::open(self.0.join(format!("{member}.{pid}.log")))?;
        for old in self.members()?.into_iter().skip(PROCESSES_MAX) {
            // Another process may have deleted it.
            let _ = fs::remove_file(old.path.with_extension(OLDER));
            let _ = fs::remove_file(old.path);
        }
        Ok(file)
    }

    /// The files, that which changed last first. None if there is no folder.
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn members(&self) -> io::Result<Vec<MemberLog>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut members: Vec<_> = entries.filter_map(|entry| MemberLog::of(entry.ok()?.path())).collect();
        members.sort_by_key(|member| std::cmp::Reverse(member.changed));
        Ok(members)
    }
}

// === impl MemberLog ===

impl MemberLog {
    fn of(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
        let (member, pid) = name.rsplit_once('.')?;
        let (member, pid) = (member.to_owned(), pid.parse().ok()?);
        let changed = fs::metadata(&path).ok()?.modified().ok()?;
        Some(Self { member, pid, path, changed })
    }

    /// The file before this one, if this one has started anew.
    pub(super) fn older(&self) -> PathBuf {
        self.path.with_extension(OLDER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_files_beyond_the_bound_are_deleted() {
        let state = tempfile::tempdir().unwrap();
        let folder = LogFolder::new(state.path(), &"home".parse().unwrap());
        assert_eq!(folder.members().unwrap(), []);
        for pid in 0..PROCESSES_MAX as u32 + 3 {
            let path = folder.open("mini.1", pid).map(|_| folder.path().join(format!("mini.1.{pid}.log"))).unwrap();
            let changed = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(pid) + 1);
            fs::File::options().append(true).open(path).unwrap().set_modified(changed).unwrap();
        }
        let members = folder.members().unwrap();
        assert_eq!(members.len(), PROCESSES_MAX);
        assert_eq!((members[0].member.as_str(), members[0].pid), ("mini.1", PROCESSES_MAX as u32 + 2));
    }
}
