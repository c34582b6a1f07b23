//! The sending end: one PUSH socket, one peer.
//!
//! A PUSH socket queues without a bound, does not notice that its peer is gone and never reconnects. So every message
//! reports that it has left the queue, and a task next to the socket watches the peer. On one machine the task holds a
//! second connection, for heartbeats. If the peer is on another machine, the socket sends to a relay in this process,
//! which carries its bytes to the peer, sealed.

use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use schema::frame::Frame;
use tokio::net::{TcpStream, UnixListener, UnixStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use zeromq::{PushSocket, Socket, SocketSend};

use super::LinkError;
use super::endpoint::Endpoint;
use super::error::EndError;
use super::heartbeat;
use super::in_flight::InFlight;
use super::key::ClusterKey;
use super::limits::{CONNECT_AGAIN, CONNECT_WAIT_MAX, SEND_WAIT_MAX};
use super::message::{of_parts, to_parts};
use super::noise::{self, Cipher, Role};
use super::pipe::{PlainSink, PlainSource, carry_both};
use super::runtime_dir::{self, PULL_SOCKET, RuntimeDir};
use super::task::Task;
use super::zmtp::Flow;

/// Sends to one peer. Dropping it closes the connection. Messages that are then in flight are lost, or come late
/// ([`Outbound::flush`]).
pub struct Outbound {
    push: PushSocket,
    endpoint: String,
    in_flight: InFlight,
    round_trip: Duration,
    /// The sender of `progress`. The watch task and the messages in the queue own it.
    report: Weak<watch::Sender<Progress>>,
    progress: watch::Receiver<Progress>,
    _watch: Task,
}

/// Progress of the connection so far.
#[derive(Debug, Default)]
struct Progress {
    /// Messages that have left the queue.
    passed: u64,
    ended: Option<EndError>,
}

/// The first part of a message. Its drop means that the message has left the queue for the writer's buffer, which takes
/// no other message before most of it is written out.
struct Receipt {
    header: Bytes,
    report: Arc<watch::Sender<Progress>>,
}

// === impl Outbound ===

impl Outbound {
    /// Connects to `endpoint`. `key` is needed for `tcp://` only. Returns once the peer's socket has answered.
    ///
    /// # Errors
    /// [`LinkError`] if nothing listens there, if the peer has another key, or without an answer within
    /// [`CONNECT_WAIT_MAX`].
    pub async fn connect(endpoint: &str, key: Option<&ClusterKey>) -> Result<Self, LinkError> {
        Self::connect_in(&runtime_dir::default_parent(), endpoint, key).await
    }

    /// Like [`Outbound::connect`], with the short-lived socket in a private directory that is made in `parent`.
    ///
    /// # Errors
    /// As [`Outbound::connect`].
    pub async fn connect_in(parent: &Path, endpoint: &str, key: Option<&ClusterKey>) -> Result<Self, LinkError> {
        let silent = LinkError::Silent { endpoint: endpoint.to_owned(), waited: CONNECT_WAIT_MAX };
        timeout(CONNECT_WAIT_MAX, Self::try_to_connect(parent, endpoint, key)).await.unwrap_or(Err(silent))
    }

    /// Starts an attempt, and one more after each [`CONNECT_AGAIN`] without an answer. The first answer counts.
    async fn try_to_connect(parent: &Path, endpoint: &str, key: Option<&ClusterKey>) -> Result<Self, LinkError> {
        let mut tries = FuturesUnordered::new();
        loop {
            tries.push(Self::connect_now(parent, endpoint, key));
            if let Ok(Some(answer)) = timeout(CONNECT_AGAIN, tries.next()).await {
                return answer;
            }
        }
    }

    async fn connect_now(parent: &Path, endpoint: &str, key: Option<&ClusterKey>) -> Result<Self, LinkError> {
        let parsed = Endpoint::from_str(endpoint)?;
        let endpoint = parsed.to_string();
        match parsed {
            Endpoint::Ipc(socket) => Self::connect_here(endpoint, &socket).await,
            Endpoint::Tcp { host, port } => Self::connect_there(parent, endpoint, (&host, port), key).await,
        }
    }

    /// Connects to a process on this machine: straight to its PULL socket, as long as its acceptor sends heartbeats.
    async fn connect_here(endpoint: String, socket: &Path) -> Result<Self, LinkError> {
        runtime_dir::check_owner(socket)?;
        let mut stream = UnixStream::connect(socket).await.map_err(|cause| connect_error(&endpoint, cause))?;
        if let Err(cause) = heartbeat::receive(&mut stream).await {
            return Err(LinkError::Lost { endpoint, cause });
        }
        let pull = socket.with_file_name(PULL_SOCKET);
        Self::to_socket(endpoint, Duration::ZERO, &pull, heartbeat::exchange(stream)).await
    }

    /// Connects to another machine, through a relay.
    async fn connect_there(
        parent: &Path,
        endpoint: String,
        (host, port): (&str, u16),
        key: Option<&ClusterKey>,
    ) -> Result<Self, LinkError> {
        let (stream, cipher, round_trip) = dial(&endpoint, host, port, key).await?;
        let dir = RuntimeDir::create(parent)?;
        let path = dir.socket("out.sock")?;
        let listener = UnixListener::bind(&path).map_err(|cause| connect_error(&endpoint, cause))?;
        Self::to_socket(endpoint, round_trip, &path, relay(listener, stream, cipher)).await
    }

    /// Connects a PUSH socket to `path`. The connection lasts until `watch` ends.
    async fn to_socket(
        endpoint: String,
        round_trip: Duration,
        path: &Path,
        watch: impl Future<Output = EndError> + Send + 'static,
    ) -> Result<Self, LinkError> {
        let (report, mut progress) = watch::channel(Progress::default());
        let reports = Arc::new(report);
        let report = Arc::downgrade(&reports);
        let watch = Task::spawn(async move {
            let end = watch.await;
            reports.send_modify(|progress| progress.ended = Some(end));
        });
        let (mut push, path) = (PushSocket::new(), Endpoint::ipc(path)?.to_string());
        tokio::select! {
            // The socket may notice before the watch task that the peer has ended.
            connected = push.connect(&path) => connected.map_err(|error| {
                tracing::debug!(endpoint, %error, "hung up during the handshake");
                LinkError::Lost { endpoint: endpoint.clone(), cause: EndError::Closed }
            })?,
            error = ended(&endpoint, &mut progress) => return Err(error),
        }
        Ok(Self { push, endpoint, in_flight: InFlight::default(), round_trip, report, progress, _watch: watch })
    }

    /// The endpoint that it is connected to.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The time that the other machine took to accept the connection: one round trip. Zero within a machine.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Sends a frame and its activations (`rows × hidden` f32 values, little endian; empty for any frame but a hop, and
    /// for a hop with token ids). Waits for room if the peer is slow. A cancelled wait has sent nothing.
    ///
    /// # Errors
    /// After an error that [`LinkError::is_about_one_message`], this message can never be sent. After any other error,
    /// drop this and connect anew. Messages sent before may be lost too.
    pub async fn send(&mut self, frame: &Frame, activations: impl Into<Bytes>) -> Result<(), LinkError> {
        let (header, activations) = to_parts(frame, activations.into())?;
        let bytes = header.len() + activations.len();
        self.wait_until(|in_flight| in_flight.has_room(bytes)).await?;
        let closed = || LinkError::Lost { endpoint: self.endpoint.clone(), cause: EndError::Closed };
        let receipt = Receipt { header, report: self.report.upgrade().ok_or_else(closed)? };
        let message = of_parts(Bytes::from_owner(receipt), activations);
        self.push.send(message).await.map_err(|error| LinkError::Zeromq(error.to_string()))?;
        self.in_flight.accept(bytes);
        Ok(())
    }

    /// Waits until everything sent has left the queue. Dropping this may still lose messages on their way to another
    /// machine.
    ///
    /// # Errors
    /// As [`Outbound::send`].
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        self.wait_until(InFlight::is_empty).await
    }

    /// Waits until the connection has ended and returns the cause. Cancel-safe.
    pub async fn lost(&mut self) -> LinkError {
        ended(&self.endpoint, &mut self.progress).await
    }

    async fn wait_until(&mut self, holds: impl Fn(&InFlight) -> bool) -> Result<(), LinkError> {
        let deadline = Instant::now() + SEND_WAIT_MAX;
        loop {
            self.settle()?;
            if holds(&self.in_flight) {
                return Ok(());
            }
            if timeout_at(deadline, self.progress.changed()).await.is_err() {
                return Err(LinkError::Stalled {
                    endpoint: self.endpoint.clone(),
                    waited: SEND_WAIT_MAX,
                    messages: self.in_flight.messages(),
                    bytes: self.in_flight.bytes(),
                });
            }
        }
    }

    fn settle(&mut self) -> Result<(), LinkError> {
        // A watch task that is gone without a report watches no more.
        let gone = self.progress.has_changed().is_err();
        let progress = self.progress.borrow_and_update();
        self.in_flight.settle(progress.passed);
        match progress.ended.clone().or(gone.then_some(EndError::Closed)) {
            Some(cause) => Err(LinkError::Lost { endpoint: self.endpoint.clone(), cause }),
            None => Ok(()),
        }
    }
}

// === impl Receipt ===

impl AsRef<[u8]> for Receipt {
    fn as_ref(&self) -> &[u8] {
        &self.header
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.report.send_modify(|progress| progress.passed += 1);
    }
}

/// Waits until the connection to `endpoint` has ended and returns the cause. Cancel-safe.
async fn ended(endpoint: &str, progress: &mut watch::Receiver<Progress>) -> LinkError {
    let ended = progress.wait_for(|progress| progress.ended.is_some()).await;
    let cause = ended.ok().and_then(|progress| progress.ended.clone()).unwrap_or(EndError::Closed);
    LinkError::Lost { endpoint: endpoint.to_owned(), cause }
}

/// Connects to a gate and runs the handshake with the key. The duration is that of connecting.
async fn dial(
    endpoint: &str,
    host: &str,
    port: u16,
    key: Option<&ClusterKey>,
) -> Result<(TcpStream, Cipher, Duration), LinkError> {
    let key = key.ok_or_else(|| LinkError::KeyMissing { endpoint: endpoint.to_owned() })?;
    let addresses: Vec<_> = lookup_host((host, port)).await.map_err(|cause| connect_error(endpoint, cause))?.collect();
    let began = Instant::now();
    let connected = TcpStream::connect(&addresses[..]).await;
    let mut stream = connected.map_err(|cause| connect_error(endpoint, cause))?;
    let round_trip = began.elapsed();
    stream.set_nodelay(true).map_err(|cause| connect_error(endpoint, cause))?;
    let handshake = noise::connect(&mut stream, key).await;
    let cipher = handshake.map_err(|cause| LinkError::Handshake { endpoint: endpoint.to_owned(), cause })?;
    Ok((stream, cipher, round_trip))
}

/// Carries bytes between the PUSH socket and the peer until one of them ends.
async fn relay(listener: UnixListener, stream: TcpStream, cipher: Cipher) -> EndError {
    let near = match listener.accept().await {
        Ok((near, _)) => near,
        Err(cause) => return cause.into(),
    };
    drop(listener);
    let (read, write) = near.into_split();
    let (near_source, near_sink) = (PlainSource::new(read, Flow::Messages), PlainSink(write));
    let (read, write) = stream.into_split();
    let (far_source, far_sink) = noise::sealed(read, write, &cipher, Role::Initiator);
    carry_both((near_source, far_sink), (far_source, near_sink)).await
}

fn connect_error(endpoint: &str, cause: std::io::Error) -> LinkError {
    LinkError::Connect { endpoint: endpoint.to_owned(), cause }
}
