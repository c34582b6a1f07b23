//! TLS of a client by rustls.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use super::trusted::{TrustError, TrustedCertificates};

/// The protocol over TLS that the clients speak (ALPN).
const HTTP_1_1: &[u8] = b"http/1.1";

/// The TLS of one client.
#[derive(Debug, Clone)]
pub(super) struct ClientTls(Arc<ClientConfig>);

// === impl ClientTls ===

impl ClientTls {
    /// Trusts the public authorities and what is `trusted` besides.
    pub(super) fn new(trusted: &TrustedCertificates) -> Result<Self, TrustError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = &trusted.file {
            let read = add(&mut roots, path).map_err(|cause| TrustError::Read { path: path.clone(), cause })?;
            if !read {
                return Err(TrustError::Content { path: path.clone() });
            }
        }
        // The own certificate may be missing, or be of no use: then the handshake fails where it is needed.
        let _ = trusted.own.as_deref().map(|path| add(&mut roots, path));
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TrustError::Setup { reason: error.to_string() })?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Performs the handshake with `host` over `stream`.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await.map_err(explain)
    }
}

/// Adds the certificates in a file. False if one of them cannot be used, or if there is none.
fn add(roots: &mut RootCertStore, path: &Path) -> io::Result<bool> {
    let pem = fs::read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let Ok(found) = found else { return Ok(false) };
    let count = found.len();
    let (added, _) = roots.add_parsable_certificates(found);
    Ok(added > 0 && added == count)
}

/// The error of a handshake, with advice if nobody vouches for the certificate.
fn explain(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => io::Error::new(
            error.kind(),
            format!("{error}; BATON_CA_FILE names a file with the certificates to trust, such as the server's own"),
        ),
        _ => error,
    }
}
