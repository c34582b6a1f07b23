//! The side that fetches: asks the machines of a list, in turn, for a manifest and for bytes.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::store::EtcdAccess;
use schema::Fingerprint;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::error::LayersError;
use super::found_sources::FoundSources;
use super::limits::{
    BODY_WAIT_MAX, CHUNK_BYTES, CONNECT_WAIT_MAX, HEAD_WAIT_MAX, MANIFEST_BYTES_MAX, MANIFEST_WAIT_MAX,
};
use super::manifest::ChunkManifest;
use super::protocol::{LayerReply, LayerRequest, read_head, write_message};
use super::sources::{Source, Sources};
use super::tls::MemberTls;

/// The scheme of a store with TLS, before the address of a shared port.
const SCHEME: &str = "https://";

/// The machines of a cluster, as sources of its model. Its calls block, outside the threads of a runtime.
pub struct LayerClient {
    /// Its own, because a fetch may outlive that of the process, which ends while a compute thread fetches. There until
    /// the client is dropped.
    runtime: Option<Runtime>,
    for_shared_ports: Arc<ClientConfig>,
    for_members: Arc<ClientConfig>,
    name: ServerName<'static>,
    sources: Sources,
    found: FoundSources,
    /// The connections, by address.
    streams: BTreeMap<String, TlsStream<TcpStream>>,
}

// === impl LayerClient ===

impl LayerClient {
    /// A client of the shared ports at which `access` finds the store, and of the members that are `found`. `None` if
    /// there are no shared ports.
    ///
    /// # Errors
    /// [`LayersError::Certificates`] if those of this machine cannot be used, [`LayersError::Runtime`] if it has no
    /// resources for a connection.
    pub fn new(access: &EtcdAccess, found: FoundSources) -> Result<Option<Self>, LayersError> {
        let addresses = access.endpoints.iter().filter_map(|endpoint| endpoint.strip_prefix(SCHEME));
        let addresses: Vec<String> = addresses.map(|address| address.trim_end_matches('/').into()).collect();
        if addresses.is_empty() {
            return Ok(None);
        }
        let Some(tls) = MemberTls::new(access)? else { return Ok(None) };
        let runtime = Some(Builder::new_current_thread().enable_all().build().map_err(LayersError::Runtime)?);
        Ok(Some(Self {
            runtime,
            for_shared_ports: tls.for_shared_ports()?,
            for_members: tls.for_members()?,
            name: tls.name,
            sources: Sources::shared(addresses),
            found,
            streams: BTreeMap::new(),
        }))
    }

    /// The machine to ask next, of those for which `may_be` is true.
    pub(super) fn next(&mut self, may_be: impl Fn(&Source) -> bool) -> Option<Source> {
        self.sources.set_members(&self.found.addresses());
        self.sources.next(Instant::now(), may_be)
    }

    /// Asks the machine at `address` for nothing for a while.
    pub(super) fn leave_out(&mut self, address: &str, reason: &str) {
        self.streams.remove(address);
        self.sources.leave_out(address, Instant::now(), reason);
    }

    /// The machine at `address` answered, or could not for now: then it is asked after all others for a while.
    pub(super) fn note(&mut self, address: &str, answered: bool) {
        self.sources.note(address, Instant::now(), answered);
    }

    /// The reasons for which machines are left out.
    pub(super) fn reasons(&self) -> String {
        self.sources.reasons()
    }

    /// The manifest of the model with `fingerprint`.
    ///
    /// # Errors
    /// [`LayersError`] if the machine does not answer or refuses.
    pub(super) fn manifest(
        &mut self,
        source: &Source,
        fingerprint: &Fingerprint,
    ) -> Result<ChunkManifest, LayersError> {
        let request = LayerRequest::Manifest { fingerprint: fingerprint.clone(), polls: true };
        let body = self.ask(source, &request, MANIFEST_WAIT_MAX, |bytes| bytes <= MANIFEST_BYTES_MAX)?;
        let manifest = serde_json::from_slice::<ChunkManifest>(&body).map_err(io::Error::from);
        let is_right = |manifest: &ChunkManifest| manifest.fingerprint() == fingerprint;
        match manifest {
            Ok(manifest) if is_right(&manifest) => Ok(manifest),
            Ok(_) => Err(malformed(source, invalid("a manifest of another model"))),
            Err(cause) => Err(malformed(source, cause)),
        }
    }

    /// Bytes of a file of the model with `fingerprint`: all of `range`, which begins with a chunk, or the first whole
    /// chunks of it, if the machine has no more.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub(super) fn bytes(
        &mut self,
        source: &Source,
        fingerprint: &Fingerprint,
        part: usize,
        range: Range<u64>,
    ) -> Result<Vec<u8>, LayersError> {
        let bytes = range.end - range.start;
        let may_be = |found: u64| found == bytes || (1..bytes).contains(&found) && found.is_multiple_of(CHUNK_BYTES);
        let request = LayerRequest::Bytes { part, start: range.start, bytes, fingerprint: Some(fingerprint.clone()) };
        self.ask(source, &request, HEAD_WAIT_MAX, may_be)
    }

    /// Sends a request and returns the bytes of the answer, of which `may_be` accepts the number.
    fn ask(
        &mut self,
        source: &Source,
        request: &LayerRequest,
        head_wait: Duration,
        may_be: impl Fn(u64) -> bool,
    ) -> Result<Vec<u8>, LayersError> {
        let Some(runtime) = self.runtime.take() else { unreachable!("it is put back below") };
        let was_open = self.streams.contains_key(&source.address);
        let mut asked = runtime.block_on(self.converse(source, request, head_wait, &may_be));
        // The other side closes connections that are not used for a while. One that is silent is not asked twice.
        let is_closed = |cause: &io::Error| cause.kind() != io::ErrorKind::TimedOut;
        if was_open && matches!(&asked, Err(LayersError::Broken { cause, .. }) if is_closed(cause)) {
            asked = runtime.block_on(self.converse(source, request, head_wait, &may_be));
        }
        self.runtime = Some(runtime);
        asked
    }

    async fn converse(
        &mut self,
        source: &Source,
        request: &LayerRequest,
        head_wait: Duration,
        may_be: &impl Fn(u64) -> bool,
    ) -> Result<Vec<u8>, LayersError> {
        let broken = |cause| LayersError::Broken { address: source.address.clone(), cause };
        let mut stream = match self.streams.remove(&source.address) {
            Some(stream) => stream,
            None => self.connect(source).await?,
        };
        bounded(CONNECT_WAIT_MAX, write_message(&mut stream, request, &[])).await.map_err(broken)?;
        let reply = bounded(head_wait, read_head::<LayerReply>(&mut stream)).await.map_err(|cause| {
            if cause.kind() == io::ErrorKind::InvalidData { malformed(source, cause) } else { broken(cause) }
        })?;
        let length = match reply {
            Some(LayerReply::Body(length)) if may_be(length) => length,
            Some(LayerReply::Body(length)) => {
                return Err(malformed(source, invalid(&format!("an answer of {length} bytes"))));
            }
            Some(LayerReply::Refused(reason)) => {
                self.streams.insert(source.address.clone(), stream);
                return Err(LayersError::Refused { address: source.address.clone(), reason });
            }
            None => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
        };
        let mut body = vec![0; length as usize];
        bounded(BODY_WAIT_MAX, async { stream.read_exact(&mut body).await.map(drop) }).await.map_err(broken)?;
        self.streams.insert(source.address.clone(), stream);
        Ok(body)
    }

    async fn connect(&self, source: &Source) -> Result<TlsStream<TcpStream>, LayersError> {
        let config = if source.is_shared { &self.for_shared_ports } else { &self.for_members };
        let connecting = async {
            let tcp = TcpStream::connect(&source.address).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(config.clone()).connect(self.name.clone(), tcp).await
        };
        let connected = bounded(CONNECT_WAIT_MAX, connecting).await;
        connected.map_err(|cause| LayersError::Connect { address: source.address.clone(), cause })
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

fn malformed(source: &Source, cause: io::Error) -> LayersError {
    LayersError::Malformed { address: source.address.clone(), cause }
}

fn invalid(found: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, found)
}

async fn bounded<T>(most: Duration, doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(most, doing).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
