//! Errors of the embedded store's file.

use std::io;
use std::path::{Path, PathBuf};

/// The reason that the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has it open.
    #[error(
        "the store in {path} is open in another process: expected one `baton up` for a cluster; --cluster gives this \
         one another name, --etcd joins the other's store",
        path = path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Another version of baton wrote it.
    #[error(
        "the store in {path} has format {found}: expected {expected}, so a newer baton wrote it; use that one, or move \
         the file away to begin with an empty store",
        path = path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u64,
        /// The version that this program reads.
        expected: u64,
    },
    /// It is damaged, or something else.
    #[error(
        "{path} is no store that can be read ({reason}): expected a file that `baton up` wrote; move it away to begin \
         with an empty store",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The database's reason.
        reason: String,
    },
    /// The operating system failed.
    #[error("cannot {doing} the store in {path}", path = path.display())]
    Io {
        /// The deed.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// An earlier error closed it.
    #[error("the store in {path} is closed after an error", path = path.display())]
    Closed {
        /// The file.
        path: PathBuf,
    },
}

// === impl DiskError ===

impl DiskError {
    pub(super) fn io(doing: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), cause }
    }

    pub(super) fn damaged(path: &Path, reason: &str) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.to_owned() }
    }

    /// Translates an error of the database.
    pub(super) fn database(doing: &'static str, path: &Path, cause: redb::Error) -> Self {
        match cause {
            redb::Error::DatabaseAlreadyOpen => Self::InUse { path: path.to_owned() },
            redb::Error::Io(cause) if cause.kind() != io::ErrorKind::InvalidData => Self::io(doing, path, cause),
            other => Self::damaged(path, &other.to_string()),
        }
    }

    /// The innermost reason, for a client.
    pub(in crate::store) fn reason(&self) -> String {
        match self {
            Self::Io { cause, path, .. } => format!("cannot write {}: {cause}", path.display()),
            other => other.to_string(),
        }
    }
}
