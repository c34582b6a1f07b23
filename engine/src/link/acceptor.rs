//! Accepts the connections of peers that send to a PULL socket.
//!
//! A local peer connects to a socket in the private directory. That connection carries only heartbeats, in both
//! directions, as long as it lasts. The peer's messages go straight to the PULL socket in the same directory. A peer on
//! another machine connects to the gate, a TCP port, where a handshake proves that it has the cluster key. Its messages
//! pass through this process, and [`super::zmtp`] checks them. The number of connections of both kinds is bounded. The
//! failure of one connection does not affect the others. This module knows nothing of frames.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::error::EndError;
use super::handshake_error::HandshakeError;
use super::heartbeat;
use super::key::ClusterKey;
use super::limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, HANDSHAKE_WAIT_MAX, HANDSHAKES_MAX};
use super::noise::{self, Cipher, Role};
use super::pipe::{Pipe, PlainSink, PlainSource, Sink, Source, carry_both};
use super::refusals::Refusals;
use super::sender_mark;
use super::throughput;
use super::zmtp::Flow;
use crate::strangers::Strangers;

/// The TCP listener for other machines, and the cluster key that its handshake needs.
pub(super) struct Gate {
    pub(super) listener: TcpListener,
    pub(super) key: ClusterKey,
}

// === impl Gate ===

impl Gate {
    /// Closes the listener and opens one at every address of this machine, of both kinds where there is IPv6. `port` is
    /// 0 if the system is to choose one.
    pub(super) fn open_to_every_address(self, port: u16) -> io::Result<Self> {
        let Self { listener, key } = self;
        drop(listener);
        let bind = |host: IpAddr| std::net::TcpListener::bind(SocketAddr::new(host, port));
        let listener = bind(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| bind(Ipv4Addr::UNSPECIFIED.into()))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, key })
    }
}

/// A new peer and the outcome of its handshake.
type Handshaken = (Peer, Result<(TcpStream, Cipher), HandshakeError>);

/// The acceptor's state: connections in the handshake and connections that are served.
pub(super) struct Acceptor {
    local: UnixListener,
    gate: Option<Gate>,
    pull: PathBuf,
    handshaking: JoinSet<Handshaken>,
    strangers: Strangers,
    served: JoinSet<(Peer, EndError)>,
    refusals: Refusals,
}

/// The kind of a peer, with its address if it is remote.
#[derive(Debug, Clone, Copy)]
enum Peer {
    Local,
    Remote(SocketAddr),
}

enum ConnectionEvent {
    Local(UnixStream),
    Remote(TcpStream, SocketAddr),
    AcceptFailed(io::Error),
    Handshaken(Result<Handshaken, JoinError>),
    Ended(Result<(Peer, EndError), JoinError>),
}

// === impl Acceptor ===

impl Acceptor {
    /// An acceptor on `local` and `gate` for the PULL socket at `pull`.
    pub(super) fn new(local: UnixListener, gate: Option<Gate>, pull: PathBuf) -> Self {
        Self {
            local,
            gate,
            pull,
            handshaking: JoinSet::new(),
            strangers: Strangers::new(HANDSHAKES_MAX),
            served: JoinSet::new(),
            refusals: Refusals::of("connection"),
        }
    }

    /// Serves until the future is dropped, which closes every connection.
    pub(super) async fn serve(mut self) {
        loop {
            match self.next().await {
                ConnectionEvent::Local(stream) => self.serve_connection(Peer::Local, |_| heartbeat::exchange(stream)),
                ConnectionEvent::Remote(stream, address) => self.start_handshake(stream, address),
                ConnectionEvent::Handshaken(Ok((peer, Ok((stream, cipher))))) => {
                    self.serve_connection(peer, |pull| serve_remote(stream, cipher, pull, peer));
                }
                ConnectionEvent::Handshaken(Ok((peer, Err(cause)))) => self.refusals.record(&peer, &cause),
                ConnectionEvent::Handshaken(Err(error)) => tracing::warn!(%error, "a handshake's task failed"),
                ConnectionEvent::Ended(Ok((peer, cause))) => self.record_end(peer, &cause),
                ConnectionEvent::Ended(Err(error)) => tracing::warn!(%error, "a connection's task failed"),
                ConnectionEvent::AcceptFailed(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn next(&mut self) -> ConnectionEvent {
        let remote = async {
            match &self.gate {
                Some(gate) => gate.listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            local = self.local.accept() => match local {
                Ok((stream, _)) => ConnectionEvent::Local(stream),
                Err(error) => ConnectionEvent::AcceptFailed(error),
            },
            remote = remote => match remote {
                Ok((stream, address)) => ConnectionEvent::Remote(stream, address),
                Err(error) => ConnectionEvent::AcceptFailed(error),
            },
            Some(done) = self.handshaking.join_next() => ConnectionEvent::Handshaken(done),
            Some(done) = self.served.join_next() => ConnectionEvent::Ended(done),
        }
    }

    /// Starts the handshake with a new peer. If there are too many handshakes already, another one ends.
    fn start_handshake(&mut self, mut stream: TcpStream, address: SocketAddr) {
        let Some(gate) = &self.gate else { return };
        let mut place = self.strangers.enter(address.ip());
        let key = gate.key.clone();
        let handshake = async move {
            let cipher = async {
                stream.set_nodelay(true)?;
                noise::accept(&mut stream, &key).await
            };
            let cipher = tokio::select! {
                cipher = timeout(HANDSHAKE_WAIT_MAX, cipher) => cipher.unwrap_or(Err(HandshakeError::Timeout)),
                () = place.lost() => Err(HandshakeError::TooMany),
            };
            (Peer::Remote(address), cipher.map(|cipher| (stream, cipher)))
        };
        self.handshaking.spawn(handshake);
    }

    fn serve_connection<F>(&mut self, peer: Peer, serve: impl FnOnce(PathBuf) -> F)
    where
        F: Future<Output = EndError> + Send + 'static,
    {
        if self.served.len() >= CONNECTIONS_MAX {
            self.refusals.record(&peer, &format_args!("{CONNECTIONS_MAX} connections are served already"));
            return;
        }
        tracing::debug!(%peer, "peer connected");
        let serving = serve(self.pull.clone());
        self.served.spawn(async move { (peer, serving.await) });
    }

    fn record_end(&mut self, peer: Peer, cause: &EndError) {
        match cause {
            EndError::Zmtp(_) | EndError::UnexpectedData | EndError::GreetingTimeout(_) | EndError::Seal => {
                self.refusals.record(&peer, cause);
            }
            EndError::Closed | EndError::HeartbeatTimeout(_) | EndError::Io(_) => {
                tracing::debug!(%peer, %cause, "peer disconnected");
            }
        }
    }
}

async fn serve_remote(stream: TcpStream, cipher: Cipher, pull: PathBuf, peer: Peer) -> EndError {
    let (read, write) = stream.into_split();
    let (mut source, mut sink) = noise::sealed(read, write, &cipher, Role::Responder);
    let mark = match peer {
        Peer::Remote(address) => sender_mark::of(address),
        Peer::Local => Vec::new(),
    };
    match timeout(HANDSHAKE_WAIT_MAX, source.peek()).await {
        Ok(Ok(throughput::BURST)) => throughput::answer(&mut source, &mut sink).await,
        Ok(Ok(_)) => join(source, sink, &pull, &mark).await,
        Ok(Err(end)) => end,
        Err(_) => EndError::GreetingTimeout(HANDSHAKE_WAIT_MAX),
    }
}

/// Carries bytes between a peer and the PULL socket until one of the two connections ends, with `mark` before each
/// message.
async fn join(source: impl Source, sink: impl Sink, pull: &Path, mark: &[u8]) -> EndError {
    let socket = match UnixStream::connect(pull).await {
        Ok(socket) => socket,
        Err(cause) => return cause.into(),
    };
    let (read, write) = socket.into_split();
    let messages = Pipe { source, sink: PlainSink(write) };
    carry_both(messages, mark, Pipe { source: PlainSource::new(read, Flow::Handshake), sink }).await
}

// === impl Peer ===

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("a process on this machine"),
            Self::Remote(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use schema::frame::{Frame, Refusal};
    use schema::{Epoch, Generation, Step};

    use super::*;
    use crate::link::{Inbound, Listen, Outbound};

    fn refusal(step: u64) -> Frame {
        let reason = String::new();
        Frame::Refusal(Refusal {
            generation: Generation(1),
            epoch: Epoch(1),
            step: Step(step),
            slot: 0,
            reason,
            passing: false,
            epoch_known: Epoch(0),
        })
    }

    /// Greeting and READY of a PUSH socket.
    fn opening() -> Vec<u8> {
        let mut bytes = vec![0; 64];
        (bytes[0], bytes[9], bytes[10]) = (0xff, 0x7f, 3);
        bytes[12..16].copy_from_slice(b"NULL");
        bytes.extend(b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH");
        bytes
    }

    async fn end_of(source: &mut impl Source) -> EndError {
        loop {
            if let Err(end) = source.read().await {
                return end;
            }
        }
    }

    #[tokio::test]
    async fn a_holder_of_the_key_cannot_declare_a_length_that_aborts_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let key = ClusterKey::generate().unwrap();
        let listen = Listen::new(Some("127.0.0.1".to_owned()), None, Some(key.clone())).unwrap();
        let mut inbound = Inbound::bind_in(dir.path(), listen).await.unwrap();
        let mut good = Outbound::connect_in(dir.path(), inbound.endpoint(), Some(&key)).await.unwrap();
        let address = inbound.endpoint().strip_prefix("tcp://").unwrap().to_owned();
        let hostile = [
            [opening(), vec![2], (1_u64 << 36).to_be_bytes().to_vec()].concat(),
            [opening(), vec![3], u64::MAX.to_be_bytes().to_vec()].concat(),
            b"random bytes, sealed".to_vec(),
            vec![0xff; 64],
        ];
        for (round, bytes) in hostile.iter().enumerate() {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            let cipher = noise::connect(&mut stream, &key).await.unwrap();
            let (read, write) = stream.into_split();
            let (mut source, mut sink) = noise::sealed(read, write, &cipher, Role::Initiator);
            sink.write(bytes).await.unwrap();
            let end = end_of(&mut source).await;
            assert!(!matches!(end, EndError::HeartbeatTimeout(_)), "it was left open");
            good.send(&refusal(round as u64), Bytes::new()).await.unwrap();
            assert_eq!(inbound.receive().await.unwrap().frame, refusal(round as u64));
        }
    }

    /// A message of one part.
    fn message(step: u64) -> Vec<u8> {
        let frame = refusal(step).encode();
        [&[0, u8::try_from(frame.len()).unwrap()][..], &frame].concat()
    }

    #[tokio::test]
    async fn a_peer_that_has_ended_keeps_its_place_until_what_it_sent_is_received_and_no_longer() {
        const MESSAGES: u64 = 60;
        let dir = tempfile::tempdir().unwrap();
        let key = ClusterKey::generate().unwrap();
        let listen = Listen::new(Some("127.0.0.1".to_owned()), None, Some(key.clone())).unwrap();
        let mut inbound = Inbound::bind_in(dir.path(), listen).await.unwrap();
        let mut stream = TcpStream::connect(inbound.endpoint().strip_prefix("tcp://").unwrap()).await.unwrap();
        let cipher = noise::connect(&mut stream, &key).await.unwrap();
        let (read, write) = stream.into_split();
        let (mut source, mut sink) = noise::sealed(read, write, &cipher, Role::Initiator);
        sink.write(&opening()).await.unwrap();
        // Each chunk is a write of its own to the PULL socket, which holds a few hundred of them.
        for byte in (0..MESSAGES).flat_map(message) {
            sink.write(&[byte]).await.unwrap();
        }
        drop(sink);
        // Nobody receives, so the pipe waits with a chunk in its hand, and does not see the end behind it.
        let kept = timeout(2 * HANDSHAKE_WAIT_MAX, end_of(&mut source)).await;
        assert!(kept.is_err(), "the connection has ended: {kept:?}");
        for step in 0..MESSAGES {
            assert_eq!(inbound.receive().await.unwrap().frame, refusal(step));
        }
        let end = timeout(HANDSHAKE_WAIT_MAX, end_of(&mut source)).await.expect("it was left open");
        assert!(matches!(end, EndError::Closed), "{end:?}");
    }

    #[tokio::test]
    async fn no_more_than_the_bound_are_served_and_a_place_comes_free() {
        let dir = tempfile::tempdir().unwrap();
        let inbound = Inbound::bind_in(dir.path(), Listen::Ipc).await.unwrap();
        let mut served = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            served.push(Outbound::connect_in(dir.path(), inbound.endpoint(), None).await.unwrap());
        }
        assert!(Outbound::connect_in(dir.path(), inbound.endpoint(), None).await.is_err());
        served.pop();
        let freed = async {
            while Outbound::connect_in(dir.path(), inbound.endpoint(), None).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), freed).await.unwrap();
    }
}
