//! The sending end: one PUSH socket, one peer.
//!
//! The PUSH socket of the ZeroMQ library does not bound the bytes in its queue, does not notice that its peer is gone
//! and never reconnects. So every message carries a receipt, which reports when the message has left the queue, and a
//! watch task beside the socket ends when the peer is gone. If the peer is on this machine, the watch task exchanges
//! heartbeats with it over a second connection. If the peer is on another machine, the watch task is a relay: the
//! socket sends to the relay over a Unix socket, and the relay encrypts the bytes and sends them to the peer over TCP.

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
use super::pipe::{Pipe, PlainSink, PlainSource, carry_both};
use super::runtime_dir::{self, PULL_SOCKET, RuntimeDir};
use super::silence::Silence;
use super::task::Task;
use super::throughput;
use super::zmtp::Flow;

/// Sends to one peer. Dropping it closes the connection. Messages that are then in flight are lost, or reach the peer
/// later. [`Outbound::flush`] waits until none is in the queue.
pub struct Outbound {
    push: PushSocket,
    endpoint: String,
    in_flight: InFlight,
    round_trip: Duration,
    /// The silence of a peer on another machine.
    silence: Option<Silence>,
    /// The sender of `progress`. Only the watch task and the messages in the queue own it, so that `progress` shows
    /// when both are gone.
    report: Weak<watch::Sender<Progress>>,
    progress: watch::Receiver<Progress>,
    _watcher: Task,
}

/// The measurements of one connection that was made for them.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// The time that TCP took to connect: one round trip.
    pub(crate) round_trip: Duration,
    /// The throughput of the burst in Mbit/s, if there was to be one.
    pub(crate) burst: Option<Result<u32, EndError>>,
}

/// The reports of the messages and of the watch task.
#[derive(Debug, Default)]
struct Progress {
    /// Number of messages that have left the queue since the connection was made.
    passed: u64,
    /// The reason for which the watch task ended.
    ended: Option<EndError>,
}

/// The first part of a message: its header. The library drops it once it has copied the message from the queue into the
/// writer's buffer. It copies the next message only when less than 128 KiB of the buffer are still unwritten.
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

    /// Like [`Outbound::connect`], with the relay's socket in a private directory that is made in `parent`. Both are
    /// removed once the PUSH socket has connected to the relay. An `ipc://` endpoint needs neither.
    ///
    /// # Errors
    /// As [`Outbound::connect`].
    pub async fn connect_in(parent: &Path, endpoint: &str, key: Option<&ClusterKey>) -> Result<Self, LinkError> {
        let silent = LinkError::Silent { endpoint: endpoint.to_owned(), waited: CONNECT_WAIT_MAX };
        timeout(CONNECT_WAIT_MAX, Self::try_to_connect(parent, endpoint, key)).await.unwrap_or(Err(silent))
    }

    /// Starts an attempt, and one more each time that [`CONNECT_AGAIN`] passes without an outcome. The first outcome
    /// counts, even if it is an error.
    async fn try_to_connect(parent: &Path, endpoint: &str, key: Option<&ClusterKey>) -> Result<Self, LinkError> {
        let mut tries = FuturesUnordered::new();
        loop {
            tries.push(Self::connect_now(parent, endpoint, key));
            if let Ok(Some(answer)) = timeout(CONNECT_AGAIN, tries.next()).await {
                return answer;
            }
        }
    }

    /// Makes one attempt.
    async fn connect_now(parent: &Path, endpoint: &str, key: Option<&ClusterKey>) -> Result<Self, LinkError> {
        let parsed = Endpoint::from_str(endpoint)?;
        let endpoint = parsed.to_string();
        match parsed {
            Endpoint::Ipc(socket) => Self::connect_here(endpoint, &socket).await,
            Endpoint::Tcp { host, port } => Self::connect_there(parent, endpoint, &host, port, key).await,
        }
    }

    /// Connects to a process on this machine: to `socket`, which its acceptor serves, for heartbeats, and for messages
    /// to the PULL socket in the same directory. The connection lasts as long as heartbeats come.
    async fn connect_here(endpoint: String, socket: &Path) -> Result<Self, LinkError> {
        runtime_dir::check_owner(socket)?;
        let mut stream = UnixStream::connect(socket).await.map_err(|cause| connect_error(&endpoint, cause))?;
        if let Err(cause) = heartbeat::receive(&mut stream).await {
            return Err(LinkError::Lost { endpoint, cause });
        }
        let pull = socket.with_file_name(PULL_SOCKET);
        Self::connect_push(endpoint, (Duration::ZERO, None), &pull, heartbeat::exchange(stream)).await
    }

    /// Connects to a process on another machine, through a relay in this process.
    async fn connect_there(
        parent: &Path,
        endpoint: String,
        host: &str,
        port: u16,
        key: Option<&ClusterKey>,
    ) -> Result<Self, LinkError> {
        let (stream, cipher, round_trip) = dial(&endpoint, host, port, key).await?;
        let dir = RuntimeDir::create(parent)?;
        let path = dir.socket("out.sock")?;
        let listener = UnixListener::bind(&path).map_err(|cause| connect_error(&endpoint, cause))?;
        let silence = Silence::begin();
        let relay = relay(listener, stream, cipher, silence.clone());
        Self::connect_push(endpoint, (round_trip, Some(silence)), &path, relay).await
    }

    /// Connects a PUSH socket to the socket at `path` and runs `until_end` as the watch task: it resolves when the
    /// connection to the peer has ended.
    async fn connect_push(
        endpoint: String,
        (round_trip, silence): (Duration, Option<Silence>),
        path: &Path,
        until_end: impl Future<Output = EndError> + Send + 'static,
    ) -> Result<Self, LinkError> {
        let (sender, mut progress) = watch::channel(Progress::default());
        let sender = Arc::new(sender);
        let report = Arc::downgrade(&sender);
        let watcher = Task::spawn(async move {
            let end = until_end.await;
            sender.send_modify(|progress| progress.ended = Some(end));
        });
        let (mut push, path) = (PushSocket::new(), Endpoint::ipc(path)?.to_string());
        tokio::select! {
            // If the peer ends during the ZMTP handshake, either the socket or the watch task may notice it first.
            connected = push.connect(&path) => connected.map_err(|error| {
                tracing::debug!(endpoint, %error, "hung up during the handshake");
                LinkError::Lost { endpoint: endpoint.clone(), cause: EndError::Closed }
            })?,
            error = ended(&endpoint, &mut progress) => return Err(error),
        }
        let in_flight = InFlight::default();
        Ok(Self { push, endpoint, in_flight, round_trip, silence, report, progress, _watcher: watcher })
    }

    /// The endpoint that it is connected to.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The time that TCP took to connect to the other machine: one round trip. Zero within a machine.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// The silence of the peer, if it is on another machine: its heartbeats come several times a second.
    pub(crate) fn silence(&self) -> Option<Silence> {
        self.silence.clone()
    }

    /// True if everything sent has left the queue.
    pub(crate) fn is_flushed(&mut self) -> bool {
        self.settle().is_ok() && self.in_flight.is_empty()
    }

    /// Connects to a peer on another machine only to know how long that takes and, if `with_burst`, how much the cable
    /// carries.
    ///
    /// # Errors
    /// As [`Outbound::connect`]. A burst that fails is none.
    pub(crate) async fn probe(
        endpoint: &str,
        key: Option<&ClusterKey>,
        with_burst: bool,
    ) -> Result<Measured, LinkError> {
        let Endpoint::Tcp { host, port } = Endpoint::from_str(endpoint)? else { return Ok(Measured::default()) };
        let silent = LinkError::Silent { endpoint: endpoint.to_owned(), waited: CONNECT_WAIT_MAX };
        let dialled = timeout(CONNECT_WAIT_MAX, dial(endpoint, &host, port, key)).await.unwrap_or(Err(silent));
        let (stream, cipher, round_trip) = dialled?;
        if !with_burst {
            return Ok(Measured { round_trip, burst: None });
        }
        let (read, write) = stream.into_split();
        let (mut source, mut sink) = noise::sealed(read, write, &cipher, Role::Initiator);
        Ok(Measured { round_trip, burst: Some(throughput::measure(&mut source, &mut sink).await) })
    }

    /// Sends a frame and its activations (`rows × hidden` f32 values, little endian; empty for any frame but a hop, and
    /// for a hop with token ids). Waits for room in the queue if the peer is slow. If the caller drops the future
    /// during that wait, nothing was sent.
    ///
    /// # Errors
    /// After an error that [`LinkError::is_about_one_message`], this message can never be sent, and the connection goes
    /// on. After any other error, drop this `Outbound` and connect anew. Messages sent before may be lost too.
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

    /// Waits until everything sent has left the queue. Dropping the `Outbound` then may still lose messages that the
    /// relay has not sent to the other machine yet.
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

    /// Waits until `holds` is true for the messages in the queue, for [`SEND_WAIT_MAX`] at most.
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

    /// Brings `in_flight` up to date. An error if the connection has ended.
    fn settle(&mut self) -> Result<(), LinkError> {
        // True if no sender is left. The watch task then ended without a report, and nothing watches the peer.
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

/// Connects to the gate of another process (its TCP listener) and runs the handshake in which each side proves that it
/// has `key`. The duration is that of the TCP connect.
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

/// Carries bytes between the PUSH socket, which connects to `listener`, and the peer behind `stream`, until one of the
/// two connections ends. The bytes on `stream` are encrypted.
async fn relay(listener: UnixListener, stream: TcpStream, cipher: Cipher, silence: Silence) -> EndError {
    let near = match listener.accept().await {
        Ok((near, _)) => near,
        Err(cause) => return cause.into(),
    };
    drop(listener);
    let (read, write) = near.into_split();
    let (near_source, near_sink) = (PlainSource::new(read, Flow::Messages), PlainSink(write));
    let (read, write) = stream.into_split();
    let (far_source, far_sink) = noise::sealed(silence.of(read), write, &cipher, Role::Initiator);
    let messages = Pipe { source: near_source, sink: far_sink };
    carry_both(messages, &[], Pipe { source: far_source, sink: near_sink }).await
}

fn connect_error(endpoint: &str, cause: std::io::Error) -> LinkError {
    LinkError::Connect { endpoint: endpoint.to_owned(), cause }
}
