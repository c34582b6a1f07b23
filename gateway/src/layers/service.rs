//! The side that serves: gives members of the cluster the manifest and the bytes of this machine's model, or those of
//! its parts that are here, a bounded number of them at a time and at a bounded rate.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use schema::Fingerprint;
use stages::weights::ModelFile;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::fetch::LayerFetch;
use super::limits::{
    BODY_WAIT_MAX, CHUNK_BYTES, CHUNKS_AT_ONCE, FETCHES_MAX, IDLE_MAX, PIECES_PER_SECOND, SERVED_BYTES_PER_SECOND,
    SERVED_BYTES_PER_SECOND_BUSY,
};
use super::own_manifest::OwnManifest;
use super::pace::Pace;
use super::protocol::{LayerRefusal, LayerReply, LayerRequest, read_head, write_message};
use crate::models::Cache;

/// This machine's model as a source for others, once it is known.
pub struct LayerService {
    model: OnceLock<Model>,
    is_busy: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
    pace: Mutex<Pace>,
    places: Semaphore,
}

/// The model.
enum Model {
    Whole(ModelFile, Arc<OwnManifest>),
    /// One of which parts are here.
    Partial(Arc<LayerFetch>),
}

/// The bytes of an answer.
enum Body {
    Manifest(Arc<Vec<u8>>),
    Bytes(Vec<u8>),
}

// === impl LayerService ===

impl Default for LayerService {
    fn default() -> Self {
        Self {
            model: OnceLock::new(),
            is_busy: OnceLock::new(),
            pace: Mutex::default(),
            places: Semaphore::new(FETCHES_MAX),
        }
    }
}

impl LayerService {
    /// Serves the model of `file` from now on, with a manifest that is kept in `cache`.
    pub fn offer(&self, file: ModelFile, cache: &Cache) {
        let manifest = Arc::new(OwnManifest::new(file.clone(), cache));
        let _ = self.model.set(Model::Whole(file, manifest));
    }

    /// Serves from now on what `fetch` has brought, or will.
    pub fn offer_parts(&self, fetch: Arc<LayerFetch>) {
        let _ = self.model.set(Model::Partial(fetch));
    }

    /// Serves at a low rate while `is_busy` returns true.
    pub fn slow_while(&self, is_busy: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.is_busy.set(Box::new(is_busy));
    }

    /// Serves one member until it closes the connection, or asks nothing for too long.
    pub async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr) {
        let Ok(_place) = self.places.try_acquire() else {
            let _ = write_message(&mut stream, &LayerReply::Refused(LayerRefusal::Busy), &[]).await;
            return;
        };
        if let Err(error) = self.converse(&mut stream, peer).await {
            debug!(%peer, %error, "a member's connection for layers ended");
        }
    }

    async fn converse(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), peer: SocketAddr) -> io::Result<()> {
        while let Some(request) = timeout(IDLE_MAX, read_head::<LayerRequest>(stream)).await?? {
            let answer = self.answer(request, peer).await;
            let sent = async {
                match &answer {
                    Ok(body) => self.send(stream, body).await,
                    Err(refusal) => write_message(stream, &LayerReply::Refused(refusal.clone()), &[]).await,
                }
            };
            timeout(BODY_WAIT_MAX, sent).await??;
        }
        Ok(())
    }

    /// Sends an answer in pieces, each when it may be sent: all at once, it would fill the queue of a link, and the
    /// frames of requests that run would wait behind it.
    async fn send(&self, stream: &mut (impl AsyncWrite + Unpin), body: &Body) -> io::Result<()> {
        write_message(stream, &LayerReply::Body(body.bytes().len() as u64), &[]).await?;
        let mut rest = body.bytes();
        while !rest.is_empty() {
            let most = (self.rate() / PIECES_PER_SECOND) as usize;
            let (piece, after) = rest.split_at(most.clamp(1, rest.len()));
            if let Body::Bytes(_) = body {
                self.wait(piece.len() as u64).await;
            }
            stream.write_all(piece).await?;
            rest = after;
        }
        stream.flush().await
    }

    async fn answer(&self, request: LayerRequest, peer: SocketAddr) -> Result<Body, LayerRefusal> {
        match self.model.get().ok_or(LayerRefusal::NotYet)? {
            Model::Whole(file, manifest) => self.answer_from_file(request, file, manifest, peer).await,
            Model::Partial(fetch) => self.answer_from_parts(request, fetch).await,
        }
    }

    async fn answer_from_file(
        &self,
        request: LayerRequest,
        file: &ModelFile,
        manifest: &Arc<OwnManifest>,
        peer: SocketAddr,
    ) -> Result<Body, LayerRefusal> {
        if file.folder().is_some() {
            return Err(LayerRefusal::Form);
        }
        check_model(&request, file.fingerprint())?;
        match request {
            LayerRequest::Manifest { polls, .. } => {
                let manifest = manifest.get(polls).await?;
                info!(%peer, model = file.name(), "a machine fetches layers");
                Ok(Body::Manifest(manifest))
            }
            LayerRequest::Bytes { part, start, bytes, .. } => {
                check_range(file, part, start, bytes)?;
                self.read(file, part, start, bytes).await.map(Body::Bytes)
            }
        }
    }

    /// Of the manifest, a member might send a wrong one: the machine that carries the store gives it.
    #[expect(clippy::disallowed_methods, reason = "reads a file; no forward pass")]
    async fn answer_from_parts(&self, request: LayerRequest, fetch: &Arc<LayerFetch>) -> Result<Body, LayerRefusal> {
        check_model(&request, fetch.fingerprint())?;
        let LayerRequest::Bytes { part, start, bytes, .. } = request else { return Err(LayerRefusal::Missing) };
        let fetch = fetch.clone();
        let reading = tokio::task::spawn_blocking(move || fetch.read_stored(part, start, bytes));
        let read = reading.await.unwrap_or_else(|error| Err(LayerRefusal::Read(error.to_string())))?;
        Ok(Body::Bytes(read))
    }

    /// Waits until so many bytes may be sent.
    async fn wait(&self, bytes: u64) {
        let pace = self.pace.lock();
        let wait = pace.unwrap_or_else(PoisonError::into_inner).take(bytes, self.rate(), Instant::now());
        sleep(wait).await;
    }

    /// Bytes a second that may be served now.
    fn rate(&self) -> u64 {
        let is_busy = self.is_busy.get().is_some_and(|is_busy| is_busy());
        if is_busy { SERVED_BYTES_PER_SECOND_BUSY } else { SERVED_BYTES_PER_SECOND }
    }

    #[expect(clippy::disallowed_methods, reason = "reads a file; no forward pass")]
    async fn read(&self, file: &ModelFile, part: usize, start: u64, bytes: u64) -> Result<Vec<u8>, LayerRefusal> {
        let file = file.clone();
        let reading = tokio::task::spawn_blocking(move || {
            file.check_unchanged().map_err(|error| LayerRefusal::Read(error.to_string()))?;
            let mut read = vec![0; bytes as usize];
            let part = file.files().nth(part).ok_or(LayerRefusal::Range)?;
            match part.read_exact_at(&mut read, start) {
                Ok(()) => Ok(read),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(LayerRefusal::Range),
                Err(error) => Err(LayerRefusal::Read(error.to_string())),
            }
        });
        reading.await.unwrap_or_else(|error| Err(LayerRefusal::Read(error.to_string())))
    }
}

/// Checks that the request is about the model with `fingerprint`.
fn check_model(request: &LayerRequest, fingerprint: &Fingerprint) -> Result<(), LayerRefusal> {
    let asked = match request {
        LayerRequest::Manifest { fingerprint, .. } => Some(fingerprint),
        LayerRequest::Bytes { fingerprint, .. } => fingerprint.as_ref(),
    };
    if asked.is_none_or(|asked| asked == fingerprint) {
        return Ok(());
    }
    Err(LayerRefusal::OtherModel { found: fingerprint.clone() })
}

/// Checks that file `part` has the bytes, and that they are no more than may be asked for at once.
fn check_range(file: &ModelFile, part: usize, start: u64, bytes: u64) -> Result<(), LayerRefusal> {
    let part = file.files().nth(part).ok_or(LayerRefusal::Range)?;
    let length = part.metadata().map_err(|error| LayerRefusal::Read(error.to_string()))?.len();
    let is_there = start.checked_add(bytes).is_some_and(|end| end <= length);
    if is_there && (1..=CHUNKS_AT_ONCE * CHUNK_BYTES).contains(&bytes) { Ok(()) } else { Err(LayerRefusal::Range) }
}

// === impl Body ===

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Manifest(bytes) => bytes,
            Self::Bytes(bytes) => bytes,
        }
    }
}
