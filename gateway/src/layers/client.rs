//! The side that fetches: asks the machines of a list, one at a time, for a manifest and for bytes.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use engine::store::EtcdAccess;
use schema::Fingerprint;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use super::error::LayersError;
use super::limits::{BODY_WAIT_MAX, CONNECT_WAIT_MAX, HEAD_WAIT_MAX, MANIFEST_BYTES_MAX, MANIFEST_WAIT_MAX};
use super::manifest::ChunkManifest;
use super::protocol::{LAYERS_PROTOCOL, LayerReply, LayerRequest, read_head, write_message};

/// The scheme of a store with TLS, before the address of a shared port.
const SCHEME: &str = "https://";

/// The machines that share a cluster, as sources of its model. Its calls block, outside the threads of a runtime.
pub struct LayerClient {
    /// Its own, because a fetch may outlive that of the process, which ends while a compute thread fetches. There until
    /// the client is dropped.
    runtime: Option<Runtime>,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    addresses: Vec<String>,
    /// The connection to the first of the addresses.
    stream: Option<TlsStream<TcpStream>>,
}

// === impl LayerClient ===

impl LayerClient {
    /// A client of the shared ports at which `access` finds the store. `None` if there are none.
    ///
    /// # Errors
    /// [`LayersError::Certificates`] if those of this machine cannot be used, [`LayersError::Runtime`] if it has no
    /// resources for a connection.
    pub fn new(access: &EtcdAccess) -> Result<Option<Self>, LayersError> {
        let addresses: Vec<_> = access.endpoints.iter().filter_map(|endpoint| endpoint.strip_prefix(SCHEME)).collect();
        let addresses: Vec<String> =
            addresses.into_iter().map(|address| address.trim_end_matches('/').into()).collect();
        let (tls, unusable) = (&access.tls, |what: &str| LayersError::Certificates(what.to_owned()));
        let (Some(authority), Some((certificate, key)), Some(name)) = (&tls.authority, &tls.identity, &tls.server_name)
        else {
            return Ok(None);
        };
        if addresses.is_empty() {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(authority.as_bytes());
        let authority = authority.map_err(|_| unusable("the authority is no certificate in PEM form"))?;
        roots.add(authority).map_err(|error| unusable(&error.to_string()))?;
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| unusable("its own is no certificate in PEM form"))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
        let key = key.map_err(|_| unusable("its own key is not one in PEM form"))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config =
            config.with_protocol_versions(&[&version::TLS13]).map(|config| config.with_root_certificates(roots));
        let config = config.and_then(|config| config.with_client_auth_cert(chain, key));
        let mut config = config.map_err(|error| unusable(&error.to_string()))?;
        config.alpn_protocols = vec![LAYERS_PROTOCOL.to_vec()];
        let name = ServerName::try_from(name.clone()).map_err(|error| unusable(&error.to_string()))?;
        let runtime = Some(Builder::new_current_thread().enable_all().build().map_err(LayersError::Runtime)?);
        Ok(Some(Self { runtime, config: Arc::new(config), name, addresses, stream: None }))
    }

    /// The machine that is asked, while there is one.
    pub(super) fn source(&self) -> Option<&str> {
        self.addresses.first().map(String::as_str)
    }

    /// Asks the machine that was asked last for nothing more.
    pub(super) fn leave_out(&mut self) {
        self.stream = None;
        if !self.addresses.is_empty() {
            self.addresses.remove(0);
        }
    }

    /// The manifest of the model with `fingerprint`.
    ///
    /// # Errors
    /// [`LayersError`] if the machine does not answer or refuses; then the next one is asked next.
    pub(super) fn manifest(&mut self, fingerprint: &Fingerprint) -> Result<ChunkManifest, LayersError> {
        let request = LayerRequest::Manifest { fingerprint: fingerprint.clone(), polls: true };
        let body = self.ask(&request, MANIFEST_WAIT_MAX, |bytes| bytes <= MANIFEST_BYTES_MAX)?;
        let manifest = serde_json::from_slice::<ChunkManifest>(&body).map_err(|error| self.broken(error.into()))?;
        if manifest.fingerprint() != fingerprint {
            return Err(self.broken(invalid("a manifest of another model")));
        }
        Ok(manifest)
    }

    /// Bytes of a file of the model that the manifest was asked for.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub(super) fn bytes(&mut self, part: usize, range: Range<u64>) -> Result<Vec<u8>, LayersError> {
        let bytes = range.end - range.start;
        self.ask(&LayerRequest::Bytes { part, start: range.start, bytes }, HEAD_WAIT_MAX, |found| found == bytes)
    }

    /// Sends a request and returns the bytes of the answer, of which `may_be` accepts the number.
    fn ask(
        &mut self,
        request: &LayerRequest,
        head_wait: Duration,
        may_be: impl Fn(u64) -> bool,
    ) -> Result<Vec<u8>, LayersError> {
        let Some(address) = self.source().map(str::to_owned) else {
            return Err(LayersError::NoSource("every one was left out".to_owned()));
        };
        let Some(runtime) = self.runtime.take() else { unreachable!("it is put back below") };
        let asked = runtime.block_on(self.converse(&address, request, head_wait, may_be));
        self.runtime = Some(runtime);
        if asked.is_err() {
            self.stream = None;
            self.addresses.rotate_left(1);
        }
        asked
    }

    async fn converse(
        &mut self,
        address: &str,
        request: &LayerRequest,
        head_wait: Duration,
        may_be: impl Fn(u64) -> bool,
    ) -> Result<Vec<u8>, LayersError> {
        let broken = |cause| LayersError::Broken { address: address.to_owned(), cause };
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect(address).await?,
        };
        bounded(CONNECT_WAIT_MAX, write_message(&mut stream, request, &[])).await.map_err(broken)?;
        let reply = bounded(head_wait, read_head::<LayerReply>(&mut stream)).await.map_err(broken)?;
        let length = match reply {
            Some(LayerReply::Body(length)) if may_be(length) => length,
            Some(LayerReply::Body(length)) => return Err(broken(invalid(&format!("an answer of {length} bytes")))),
            Some(LayerReply::Refused(reason)) => {
                return Err(LayersError::Refused { address: address.to_owned(), reason });
            }
            None => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
        };
        let mut body = vec![0; length as usize];
        bounded(BODY_WAIT_MAX, async { stream.read_exact(&mut body).await.map(drop) }).await.map_err(broken)?;
        self.stream = Some(stream);
        Ok(body)
    }

    async fn connect(&self, address: &str) -> Result<TlsStream<TcpStream>, LayersError> {
        let connecting = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(self.config.clone()).connect(self.name.clone(), tcp).await
        };
        let connected = bounded(CONNECT_WAIT_MAX, connecting).await;
        connected.map_err(|cause| LayersError::Connect { address: address.to_owned(), cause })
    }

    /// An answer of the machine that was asked last, which is not one.
    fn broken(&mut self, cause: io::Error) -> LayersError {
        self.stream = None;
        LayersError::Broken { address: self.source().unwrap_or_default().to_owned(), cause }
    }
}

impl Drop for LayerClient {
    fn drop(&mut self) {
        // A runtime that is dropped waits for its threads, which is not allowed where tasks run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn invalid(found: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, found)
}

async fn bounded<T>(most: Duration, doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(most, doing).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
