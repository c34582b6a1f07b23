//! The private directory for the sockets of a listening process. Its mode authenticates local peers: only processes of
//! the same user can enter it.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::UnixStream;

use super::LinkError;
use super::limits::SOCKET_PATH_BYTES_MAX;

/// The beginning of the directories' names. It must be one that no other program uses, because [`remove_orphans`]
/// removes the directories with such names.
const PREFIX: &str = "baton-link-";
const LOCK: &str = "lock";
/// The name of the listening process's ZeroMQ PULL socket. The socket of its acceptor, to which peers connect first, is
/// in the same directory.
pub(super) const PULL_SOCKET: &str = "pull.sock";

/// A directory of mode 0700 with a random name, removed on drop. Its owner holds a lock in it, so that the next process
/// can recognize the directory of a killed process and remove it.
#[derive(Debug)]
pub(super) struct RuntimeDir {
    // Dropped first: the lock must outlive the directory, or another process may take it for an orphan.
    dir: TempDir,
    _lock: File,
}

/// The parent of directories for sockets: `XDG_RUNTIME_DIR` if the system sets one, else the temporary directory.
#[expect(clippy::disallowed_methods, reason = "the folder for sockets is the system's to set, not a setting of ours")]
pub(super) fn default_parent() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime.filter(|dir| dir.is_absolute() && dir.is_dir()).unwrap_or_else(std::env::temp_dir)
}

// === impl RuntimeDir ===

impl RuntimeDir {
    /// Makes a directory in `parent`.
    pub(super) fn create(parent: &Path) -> Result<Self, LinkError> {
        loop {
            match Self::try_create(parent) {
                Ok(Some(dir)) => return Ok(dir),
                Ok(None) => {}
                Err(cause) => return Err(LinkError::RuntimeDir { parent: parent.to_owned(), cause }),
            }
        }
    }

    /// `None` if another process took the directory for an orphan and removed it before this one held the lock.
    fn try_create(parent: &Path) -> io::Result<Option<Self>> {
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(10)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        let lock = File::create(dir.path().join(LOCK))?;
        lock.lock()?;
        let still_exists = dir.path().join(LOCK).try_exists()?;
        Ok(still_exists.then_some(Self { dir, _lock: lock }))
    }

    /// The path of the socket `name` in it.
    pub(super) fn socket(&self, name: &str) -> Result<PathBuf, LinkError> {
        let path = self.dir.path().join(name);
        match path.as_os_str().len() {
            found if found > SOCKET_PATH_BYTES_MAX => Err(LinkError::PathTooLong { path, found }),
            _ => Ok(path),
        }
    }
}

/// Checks that the socket at `path` belongs to the user who runs this process.
pub(super) fn check_owner(path: &Path) -> Result<(), LinkError> {
    let connect_error = |cause| LinkError::Connect { endpoint: format!("ipc://{}", path.display()), cause };
    let found = fs::metadata(path).map_err(connect_error)?.uid();
    // `std` has no `getuid`: both ends of this pair belong to this process, so the credentials of one are its own.
    let expected = UnixStream::pair().and_then(|(here, _)| here.peer_cred()).map_err(connect_error)?.uid();
    if found == expected { Ok(()) } else { Err(LinkError::NotOurs { path: path.to_owned(), found, expected }) }
}

/// Removes from `parent` the directories that killed processes left behind.
pub(super) fn remove_orphans(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if ours && entry.file_type().is_ok_and(|kind| kind.is_dir())
            // Held until all is removed. The directory may belong to a process that has just made it and waits for
            // this lock: once it gets the lock, it must see that the directory is gone.
            && let Some(_lock) = orphan_lock(&entry.path())
        {
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => tracing::info!(dir = %entry.path().display(), "removed what a killed process left behind"),
                Err(error) => tracing::warn!(dir = %entry.path().display(), %error, "cannot remove an orphan"),
            }
        }
    }
}

/// Takes the lock in `dir` if no process holds it. A directory without a lock file is still being made, or does not
/// belong to this program: it is left alone.
fn orphan_lock(dir: &Path) -> Option<File> {
    let lock = File::open(dir.join(LOCK)).ok()?;
    match lock.try_lock() {
        Ok(()) => Some(lock),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_its_user_can_enter_and_no_files_stay() {
        let parent = tempfile::tempdir().unwrap();
        let dir = RuntimeDir::create(parent.path()).unwrap();
        let path = dir.socket("in.sock").unwrap();
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(&path, b"").unwrap();
        check_owner(&path).unwrap();
        drop(dir);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_orphan_is_removed_and_a_living_directory_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let alive = RuntimeDir::create(parent.path()).unwrap();
        let orphan = parent.path().join("baton-link-orphan");
        fs::create_dir(&orphan).unwrap();
        fs::write(orphan.join(LOCK), b"").unwrap();
        fs::write(orphan.join("in.sock"), b"").unwrap();
        let unlocked = parent.path().join("baton-link-being-made");
        fs::create_dir(&unlocked).unwrap();
        let foreign = parent.path().join("other");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join(LOCK), b"").unwrap();
        remove_orphans(parent.path());
        assert!(!orphan.exists());
        assert!(unlocked.exists() && foreign.exists() && alive.dir.path().exists());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_reported() {
        let parent = tempfile::tempdir().unwrap();
        let deep = parent.path().join("x".repeat(90));
        fs::create_dir(&deep).unwrap();
        let error = RuntimeDir::create(&deep).unwrap().socket("in.sock").unwrap_err().to_string();
        assert!(error.contains("expected at most 100") && error.contains("XDG_RUNTIME_DIR"), "{error}");
    }

    #[test]
    fn a_missing_parent_is_reported() {
        let error = RuntimeDir::create(Path::new("/nonexistent/baton")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/baton"), "{error}");
    }
}
