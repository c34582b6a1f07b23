//! Secrets: the cluster key and the API keys. None is ever in a log or in the store, and the cluster key never among
//! the arguments of a process.

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use engine::link::{ClusterKey, KeyError};

/// Most bytes of a file with a cluster key: enough for a key, spaces and a newline.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// A text that may hold a secret. It is not parsed where it is read, because an error there would show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

/// The reason that a key cannot be used. The text never contains the key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The text is not a key.
    #[error(transparent)]
    Form(#[from] KeyError),
    /// The file cannot be read.
    #[error("cannot read {what} from {path}", path = path.display())]
    Read {
        /// The secret.
        what: &'static str,
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
    /// The file is too long.
    #[error("{path} has more than {max} bytes: expected {what}", path = path.display())]
    Long {
        /// The secret.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The bound, in bytes.
        max: u64,
    },
}

/// Reads the cluster key from a file that only its owner (and group) can read.
///
/// # Errors
/// [`SecretError`] if the file cannot be read, is open to others, or holds no key.
pub(super) fn read_key(path: &Path) -> Result<ClusterKey, SecretError> {
    Ok(read(path, "the cluster key", KEY_FILE_BYTES_MAX)?.parse()?)
}

/// Reads `what` from a file that only its owner (and group) can read, and that has at most `max` bytes.
///
/// # Errors
/// [`SecretError`] if the file cannot be read, is open to others, or is too long.
pub(super) fn read(path: &Path, what: &'static str, max: u64) -> Result<String, SecretError> {
    let failed = |source| SecretError::Read { what, path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(max + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > max {
        return Err(SecretError::Long { what, path: path.to_owned(), max });
    }
    Ok(text)
}

// === impl SecretText ===

impl SecretText {
    /// The text.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(not shown)")
    }
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

    #[test]
    fn a_file_that_is_too_long_is_refused_and_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "0123456789").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&path, "ten bytes", 10).unwrap(), "0123456789");
        let error = read(&path, "nine bytes", 9).unwrap_err().to_string();
        assert!(error.ends_with("has more than 9 bytes: expected nine bytes"), "{error}");
    }

    #[test]
    fn a_secret_is_not_shown_by_debug() {
        let secret: SecretText = "s3cr3t".parse().unwrap();
        assert_eq!((secret.expose(), format!("{secret:?}").contains("s3cr3t")), ("s3cr3t", false));
    }
}
