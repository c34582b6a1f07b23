//! The place of `tls` in a build without it: no server has TLS there.

use std::convert::Infallible;
use std::io;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls_source::{TlsError, TlsNames, TlsSource};

/// A socket after its handshake.
pub(super) type Secured<S> = S;

/// The TLS of one server. There is none.
#[derive(Debug)]
pub enum ServerTls {}

// === impl ServerTls ===

impl ServerTls {
    /// Fails, because this build has no TLS.
    ///
    /// # Errors
    /// [`TlsError::NotBuilt`].
    pub fn open(_: &TlsSource, _: &TlsNames) -> Result<Self, TlsError> {
        Err(TlsError::NotBuilt)
    }

    /// The file of the certificate.
    pub fn certificate_path(&self) -> &Path {
        match *self {}
    }

    /// The fingerprint of the certificate.
    pub fn fingerprint(&self) -> String {
        match *self {}
    }

    pub(super) async fn follow_files(&self) -> Infallible {
        match *self {}
    }

    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, _: S) -> io::Result<Secured<S>> {
        match *self {}
    }
}

/// True if the client has begun with something else than TLS.
pub(super) async fn begins_as_plain_http(_: &TcpStream) -> io::Result<bool> {
    Ok(false)
}
