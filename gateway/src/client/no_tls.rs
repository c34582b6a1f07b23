//! The place of `tls` in a build without it: no client speaks https there.

use std::io;

use tokio::net::TcpStream;

use super::trusted::{TrustError, TrustedCertificates};

/// The TLS of one client. There is none.
#[derive(Debug, Clone)]
pub(super) enum ClientTls {}

// === impl ClientTls ===

impl ClientTls {
    pub(super) fn new(_: &TrustedCertificates) -> Result<Self, TrustError> {
        Err(TrustError::NotBuilt)
    }

    pub(super) async fn connect(&self, _: &str, _: TcpStream) -> io::Result<TcpStream> {
        match *self {}
    }
}
