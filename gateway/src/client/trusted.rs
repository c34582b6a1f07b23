//! The certificates that a client trusts.

use std::io;
use std::path::PathBuf;

/// Files with certificates in PEM form, each of which is trusted besides those of the public authorities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedCertificates {
    /// The file that the user names. It must be usable.
    pub file: Option<PathBuf>,
    /// The self-signed certificate that a gateway of the same user made, if there is one.
    pub own: Option<PathBuf>,
}

/// The reason that a client cannot use https.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The named file cannot be read.
    #[error("cannot read the certificates in {path}, which BATON_CA_FILE names", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// The named file has no usable certificate.
    #[error(
        "{path}, which BATON_CA_FILE names, has no usable certificate: expected sections BEGIN CERTIFICATE",
        path = path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// The cryptography cannot be set up.
    #[error("cannot set TLS up: {reason}")]
    Setup {
        /// The reason.
        reason: String,
    },
    /// This build has no TLS.
    #[error("this baton was built without TLS and speaks http only: build it with `--features tls`")]
    NotBuilt,
}
