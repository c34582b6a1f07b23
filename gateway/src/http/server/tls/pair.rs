//! A certificate with its key, read from PEM files and checked.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::provider;
use crate::http::limits::TLS_FILE_BYTES_MAX;
use crate::http::server::tls_source::{TlsError, TlsFiles};

/// The protocol over TLS that the server offers (ALPN).
const HTTP_1_1: &[u8] = b"http/1.1";

/// A certificate and its key, ready for connections.
pub(super) struct Pair {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
    fingerprint: String,
}

/// Reads the pair in `files`.
///
/// # Errors
/// [`TlsError`] if a file cannot be read, has nothing of its kind or, being the key, is open to others, and if the two
/// do not fit each other.
pub(super) fn load(files: &TlsFiles) -> Result<Pair, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = key(&files.key)?;
    let certificate = chain[0].clone();
    let versions = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = versions.and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|error| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        reason: error.to_string(),
    })?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Pair { config: Arc::new(config), fingerprint: fingerprint(&certificate), certificate })
}

/// The certificates in a file. At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let unusable = |reason: String| TlsError::Pem { path: path.to_owned(), expected: "certificate", reason };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| unusable(error.to_string()))?;
    if chain.is_empty() { Err(unusable("expected a section BEGIN CERTIFICATE".to_owned())) } else { Ok(chain) }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let mode = fs::metadata(path).map_err(|cause| cannot("read", path, cause))?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(TlsError::Open { path: path.to_owned(), mode });
    }
    // The parser's error is left out, because it may repeat what stands in the file.
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| TlsError::Pem {
        path: path.to_owned(),
        expected: "private key",
        reason: "expected a section BEGIN PRIVATE KEY, without a passphrase".to_owned(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |cause| cannot("read", path, cause);
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(TLS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > TLS_FILE_BYTES_MAX {
        return Err(TlsError::Long { path: path.to_owned(), max: TLS_FILE_BYTES_MAX });
    }
    Ok(bytes)
}

pub(super) fn cannot(doing: &'static str, path: &Path, cause: io::Error) -> TlsError {
    TlsError::File { doing, path: path.to_owned(), cause }
}

/// SHA-256 of the certificate, as pairs of hex digits with colons between them.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let bytes: Vec<_> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

// === impl Pair ===

impl Pair {
    /// The configuration of connections with this pair.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The server's own certificate, without those behind it.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The fingerprint of that certificate.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}
