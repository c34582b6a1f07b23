//! Reads the cluster key, which is secret. It is never in the arguments of a process, in a log or in the
//! store.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use engine::link::{ClusterKey, KeyError};

/// Most bytes of a key file that are read: enough for a key, spaces and a newline.
const FILE_BYTES_MAX: u64 = 1024;

/// The reason that a key cannot be used. The text never contains the key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The text is not a key.
    #[error(transparent)]
    Form(#[from] KeyError),
    /// The file cannot be read.
    #[error("cannot read the cluster key from {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// Users other than the owner and its group have access to the file.
    #[error("{path} can be read by others (mode {mode:o}): run `chmod 600` on it", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Reads the key from a file that only its owner (and group) can read.
///
/// # Errors
/// [`SecretError`] if the file cannot be read, is open to others, or holds no key.
pub(super) fn read_key(path: &Path) -> Result<ClusterKey, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, format!("{}\n", "ab".repeat(32))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_key(&path), Err(SecretError::Open { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_key(&path).unwrap().to_hex(), "ab".repeat(32));
    }
}
