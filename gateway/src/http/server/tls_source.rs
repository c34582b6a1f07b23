//! The source of the server's certificate and key.

use std::io;
use std::path::{Path, PathBuf};

/// The source of the certificate and the key that a server with TLS uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSource {
    /// Two files of the operator, which are read again when they change.
    Files(TlsFiles),
    /// A self-signed pair in this folder, made at the first start.
    SelfSigned {
        /// The folder.
        folder: PathBuf,
    },
}

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its root.
    pub certificate: PathBuf,
    /// The key, which only its owner and group may read.
    pub key: PathBuf,
}

/// The names of this machine, for a self-signed certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsNames {
    /// The name that the operating system reports. It may change with the network.
    pub host: String,
    /// Names and addresses by which the operator lets others reach this machine.
    pub given: Vec<String>,
}

/// The reason that TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot {doing} {path}", path = path.display())]
    File {
        /// The operation.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// A file is larger than any certificate.
    #[error("{path} has more than {max} bytes: expected a certificate or a key in PEM form", path = path.display())]
    Long {
        /// The file.
        path: PathBuf,
        /// The bound, in bytes.
        max: u64,
    },
    /// Users other than the owner and its group have access to the key.
    #[error("{path} can be read by others (mode {mode:o}): run `chmod 600` on it", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file has nothing of the expected kind.
    #[error("{path} has no {expected} in PEM form: {reason}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The content that is missing in it.
        expected: &'static str,
        /// The reason.
        reason: String,
    },
    /// Certificate and key do not fit each other, or cannot be used with TLS.
    #[error("cannot use {} with the key {}: {reason}", certificate.display(), key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A pair could not be made.
    #[error("cannot make a self-signed certificate: {reason}")]
    Generate {
        /// The reason.
        reason: String,
    },
    /// This build has no TLS.
    #[error("this baton was built without TLS: build it with `--features tls`")]
    NotBuilt,
}

// === impl TlsFiles ===

impl TlsFiles {
    /// The self-signed pair in `folder`.
    pub(crate) fn self_signed(folder: &Path) -> Self {
        Self { certificate: folder.join("cert.pem"), key: folder.join("key.pem") }
    }
}
