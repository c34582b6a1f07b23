//! Opens connections to servers of one scheme.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::scheme::Scheme;
use super::tls::ClientTls;
use super::trusted::{TrustError, TrustedCertificates};

/// A connection, with TLS or without.
pub type ClientStream = Box<dyn Duplex>;

/// A stream of bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Opens connections. Copies share the certificates that they trust.
#[derive(Debug, Clone)]
pub struct Connector(Option<ClientTls>);

// === impl Connector ===

impl Connector {
    /// For servers of `scheme`. Reads the certificates that are `trusted` if it is https.
    ///
    /// # Errors
    /// [`TrustError`] if the certificates cannot be used, or if this build has no TLS.
    pub fn new(scheme: Scheme, trusted: &TrustedCertificates) -> Result<Self, TrustError> {
        match scheme {
            Scheme::Http => Ok(Self(None)),
            Scheme::Https => ClientTls::new(trusted).map(|tls| Self(Some(tls))),
        }
    }

    /// Connects to `authority`, a host and a port, and performs the handshake of https. Callers bound its time.
    ///
    /// # Errors
    /// An I/O error that names the reason.
    pub async fn connect(&self, authority: &str) -> io::Result<ClientStream> {
        let stream = TcpStream::connect(authority).await?;
        // Nagle's algorithm is off, because otherwise a request's body can wait until its headers are acknowledged.
        stream.set_nodelay(true)?;
        match &self.0 {
            None => Ok(Box::new(stream)),
            Some(tls) => Ok(Box::new(tls.connect(host_of(authority), stream).await?)),
        }
    }
}

/// The host in `host:port`, without the brackets of an IPv6 address.
fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_a_certificate_names() {
        for (authority, host) in [("mini-1:8100", "mini-1"), ("10.0.0.1:443", "10.0.0.1"), ("[::1]:8100", "::1")] {
            assert_eq!(host_of(authority), host);
        }
    }
}
