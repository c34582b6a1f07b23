//! The cluster key: the one secret. It never stands on a command line, in a log or in the store.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Most bytes read of a key file: a key, spaces and a line's end.
const FILE_BYTES_MAX: u64 = 1024;

/// 32 random bytes that all machines of a cluster share; written as 64 hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

/// A key that cannot be used. Never shows what was given.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not 64 hex digits.
    #[error(
        "the cluster key has {found} characters or other than hex digits: expected 64 of 0-9 and a-f, as `baton key` prints"
    )]
    Form {
        /// How many characters there are.
        found: usize,
    },
    /// The file cannot be read.
    #[error("cannot read the cluster key from {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Other people can read the file.
    #[error("{path} can be read by others (mode {mode:o}): run `chmod 600` on it", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

// === impl ClusterKey ===

impl ClusterKey {
    /// A new random key, from the operating system's generator.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn random() -> io::Result<Self> {
        use rand::TryRngCore;
        let mut bytes = [0; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    /// Reads the key from a file only its owner (and group) can read.
    ///
    /// # Errors
    /// [`KeyError`] when it cannot be read, is open to others, or holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        use std::os::unix::fs::PermissionsExt;
        let failed = |source| KeyError::Read { path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o007 != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        text.trim().parse()
    }

    /// The key's bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key as 64 hex digits.
    pub fn to_hex(&self) -> String {
        crate::models::hex(&self.0)
    }
}

impl FromStr for ClusterKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let wrong = || KeyError::Form { found: text.chars().count() };
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or_else(wrong);
            *byte = (digit(digits[0])? * 16 + digit(digits[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_reads_back_from_its_hex() {
        let key = ClusterKey::random().unwrap();
        assert_eq!(key.to_hex().parse::<ClusterKey>().unwrap(), key);
        assert_eq!(key.to_hex().to_uppercase().parse::<ClusterKey>().unwrap(), key);
        assert_ne!(ClusterKey::random().unwrap(), key);
    }

    #[test]
    fn a_bad_key_is_refused_without_showing_it() {
        for text in ["", "abc", &"g".repeat(64), &"é".repeat(32), &"a".repeat(65)] {
            let error = text.parse::<ClusterKey>().unwrap_err().to_string();
            assert!(text.len() < 3 || !error.contains(text), "{error}");
        }
        assert_eq!(format!("{:?}", ClusterKey([1; 32])), "ClusterKey(…)");
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, format!("{}\n", "ab".repeat(32))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(ClusterKey::read(&path), Err(KeyError::Open { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(ClusterKey::read(&path).unwrap().bytes(), &[0xab; 32]);
    }
}
