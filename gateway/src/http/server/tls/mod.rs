//! TLS by rustls: the certificate that the server shows, and the handshake of a connection.
//!
//! The pair of certificate and key comes from two files (`pair`), which are made at the first start if the operator has
//! none (`self_signed`), and are read again when they change (`http::file_watch`). This module knows no HTTP.

mod pair;
mod self_signed;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use self::pair::Pair;
use super::tls_source::{TlsError, TlsFiles, TlsNames, TlsSource};
use crate::http::file_watch::FileWatch;
use crate::http::limits::FILE_WATCH_INTERVAL;

/// A socket after its handshake.
pub(super) type Secured<S> = TlsStream<S>;

/// The TLS of one server.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    /// The state of the files before they were read.
    watch: FileWatch,
    /// The pair for new connections. Those that are open keep theirs.
    pair: watch::Sender<Pair>,
}

// === impl ServerTls ===

impl ServerTls {
    /// Reads the pair of `source`. A self-signed one is made first if there is none that can be used; it is for the
    /// loopback names and for `names`.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used.
    pub fn open(source: &TlsSource, names: &TlsNames) -> Result<Self, TlsError> {
        let files = match source {
            TlsSource::Files(files) => files.clone(),
            TlsSource::SelfSigned { folder } => self_signed::ensure(folder, names)?,
        };
        let watch = FileWatch::new(vec![files.certificate.clone(), files.key.clone()]);
        let pair = pair::load(&files)?;
        Ok(Self { files, watch, pair: watch::Sender::new(pair) })
    }

    /// The file of the certificate, for clients that are to trust it.
    pub fn certificate_path(&self) -> &Path {
        &self.files.certificate
    }

    /// The SHA-256 fingerprint of the certificate, in the form that `openssl x509 -fingerprint -sha256` prints.
    pub fn fingerprint(&self) -> String {
        self.pair.borrow().fingerprint().to_owned()
    }

    /// Reads the files again whenever they change. If the new pair cannot be used, the old one stays.
    pub(super) async fn follow_files(&self) -> Infallible {
        let mut looking = (self.files.clone(), self.watch.clone());
        let mut ticks = tokio::time::interval(FILE_WATCH_INTERVAL);
        loop {
            ticks.tick().await;
            let Some((next, found)) = look(looking).await else { return std::future::pending().await };
            looking = next;
            match found {
                None => {}
                Some(Ok(pair)) => {
                    let certificate = self.files.certificate.display();
                    info!(%certificate, fingerprint = pair.fingerprint(), "the certificate has changed");
                    self.pair.send_replace(pair);
                }
                Some(Err(error)) => {
                    let error = &error as &(dyn Error + 'static);
                    warn!(error, "the certificate or its key has changed and cannot be used: the old pair stays");
                }
            }
        }
    }

    /// Performs the handshake on `socket`. Callers bound its time.
    ///
    /// # Errors
    /// An I/O error if the client does not complete it.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, socket: S) -> io::Result<Secured<S>> {
        let config = self.pair.borrow().config();
        TlsAcceptor::from(config).accept(socket).await
    }
}

/// One look at the files. `None` if the runtime ends.
#[expect(clippy::disallowed_methods, reason = "reads two small files, which may lie on a slow disk")]
async fn look(
    (files, mut watch): (TlsFiles, FileWatch),
) -> Option<((TlsFiles, FileWatch), Option<Result<Pair, TlsError>>)> {
    let looking = tokio::task::spawn_blocking(move || {
        let found = watch.look().then(|| pair::load(&files));
        ((files, watch), found)
    });
    looking.await.ok()
}

/// True if the client has begun with a letter, as HTTP does and no TLS record can. Waits for the first byte.
pub(super) async fn begins_as_plain_http(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let count = stream.peek(&mut first).await?;
    Ok(count > 0 && first[0].is_ascii_alphabetic())
}

/// The cryptography of all connections. The provider is named, so that no other one in the build can take its place.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
