//! Errors of links.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use schema::frame::FrameError;

use super::handshake_error::HandshakeError;
use super::limits::{ACTIVATION_BYTES_MAX, SOCKET_PATH_BYTES_MAX};
use super::zmtp::ZmtpError;

/// An error in making a link, or in sending or receiving a message.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A message whose header or activations are wrong. The link stays usable.
    #[error("bad message")]
    Frame(#[source] FrameError),
    /// A message that is neither a header with activations nor a header alone. The link stays usable.
    #[error("bad message of {found} parts: expected a header, and activations only where there are any")]
    Parts {
        /// The number of its parts.
        found: usize,
    },
    /// Activations too large for any link.
    #[error("activations of {found} bytes: expected at most {ACTIVATION_BYTES_MAX}")]
    TooLarge {
        /// Their length in bytes.
        found: usize,
    },
    /// Text that is no endpoint.
    #[error("endpoint {found:?}: expected ipc:///path or tcp://host:port")]
    Endpoint {
        /// The given text, cut to a printable length.
        found: String,
    },
    /// A host that other machines cannot connect to.
    #[error("cannot advertise {host:?}: expected a name or address of this machine that the others can reach")]
    Advertise {
        /// The given host.
        host: String,
    },
    /// A host that is not this machine.
    #[error(
        "cannot listen at {host}: expected a name or address of this machine; say with --advertise by which the others \
         reach it"
    )]
    NotThisMachine {
        /// The advertised address.
        host: String,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// TCP without a cluster key.
    #[error(
        "{endpoint} needs the cluster key: make one with `baton key`, and give every process the same one in \
         BATON_CLUSTER_KEY or with --cluster-key-file"
    )]
    KeyMissing {
        /// The endpoint to be served or connected to.
        endpoint: String,
    },
    /// A socket path that does not fit the system's socket address.
    #[error(
        "socket path {path} is {found} bytes long: expected at most {SOCKET_PATH_BYTES_MAX}; set XDG_RUNTIME_DIR or \
         TMPDIR to a shorter directory"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        found: usize,
    },
    /// A local socket that another user owns.
    #[error("socket {path} belongs to user {found}: expected {expected}, who runs this process")]
    NotOurs {
        /// The socket.
        path: PathBuf,
        /// The user id of its owner.
        found: u32,
        /// The user id of this process.
        expected: u32,
    },
    /// The private directory for this process's sockets cannot be made.
    #[error(
        "cannot make a private directory for sockets in {parent} (XDG_RUNTIME_DIR or TMPDIR chooses another place)"
    )]
    RuntimeDir {
        /// The directory in which it was to be made.
        parent: PathBuf,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// Listening failed.
    #[error("cannot listen on {endpoint}")]
    Listen {
        /// The endpoint.
        endpoint: String,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// Connecting failed.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// The endpoint.
        endpoint: String,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// The handshake that shows that both sides have the same key failed.
    #[error("{endpoint} did not accept this process")]
    Handshake {
        /// The endpoint.
        endpoint: String,
        /// The cause.
        #[source]
        cause: HandshakeError,
    },
    /// The endpoint accepts every connection and closes it at once, before anything is sent over it.
    #[error("{endpoint} has closed every connection at once for {lasted:?}")]
    ClosedAtOnce {
        /// The endpoint.
        endpoint: String,
        /// The time for which it has done so.
        lasted: Duration,
        /// The error of the last connection.
        #[source]
        cause: Box<LinkError>,
    },
    /// The endpoint did not answer in time.
    #[error("{endpoint} did not answer within {waited:?}")]
    Silent {
        /// The endpoint.
        endpoint: String,
        /// The time waited.
        waited: Duration,
    },
    /// The connection ended. Connect anew.
    #[error("connection to {endpoint} ended")]
    Lost {
        /// The endpoint.
        endpoint: String,
        /// The cause.
        #[source]
        cause: EndError,
    },
    /// The peer takes no more messages. Connect anew.
    #[error("{endpoint} took nothing for {waited:?} with {messages} messages ({bytes} bytes) waiting")]
    Stalled {
        /// The peer's endpoint.
        endpoint: String,
        /// The time waited.
        waited: Duration,
        /// Messages that were accepted and have not left the queue.
        messages: usize,
        /// Their size in bytes.
        bytes: usize,
    },
    /// An error of the ZeroMQ library.
    #[error("zeromq failed: {0}")]
    Zeromq(String),
}

/// The reason for which a connection ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EndError {
    /// One side closed it.
    #[error("the other side closed it")]
    Closed,
    /// Nothing was received for this time.
    #[error("nothing was received for {0:?}")]
    HeartbeatTimeout(Duration),
    /// The peer did not complete the ZMTP greeting in time.
    #[error("no ZMTP greeting within {0:?}")]
    GreetingTimeout(Duration),
    /// The bytes were not ZMTP, or declared more than any message has.
    #[error(transparent)]
    Zmtp(#[from] ZmtpError),
    /// Data came over a connection that carries only heartbeats.
    #[error("data came on a heartbeat connection")]
    UnexpectedData,
    /// The bytes were not sealed with the key.
    #[error("a sealed message was forged or damaged")]
    Seal,
    /// The system's error.
    #[error("{0}")]
    Io(io::ErrorKind),
}

/// The kind of evidence that a peer cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreachableKind {
    /// The peer's operating system refuses the connection, because nothing listens there: the process has ended.
    Refused,
    /// Nothing is received: the process or its machine has stopped, or the network between is cut.
    Silence,
    /// The peer does not accept this process as one of its cluster, or the way to it is barred: another key, another
    /// version, another program, a name that does not resolve here, a socket of another user.
    Barred,
}

// === impl LinkError ===

impl LinkError {
    /// True if the error is about one message only: count it, drop the message, and go on receiving.
    pub fn is_about_one_message(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Parts { .. } | Self::TooLarge { .. })
    }

    /// True if a connection was accepted and then closed before anything was sent over it.
    pub(crate) fn was_closed_at_once(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
        let kind =
            |kind: &io::ErrorKind| matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected);
        match self {
            Self::Lost { cause: EndError::Closed, .. } | Self::Handshake { cause: HandshakeError::Closed, .. } => true,
            Self::Lost { cause: EndError::Io(cause), .. } => kind(cause),
            Self::Handshake { cause: HandshakeError::Io(cause), .. } => kind(cause),
            Self::Connect { cause, .. } => kind(&cause.kind()),
            _ => false,
        }
    }

    /// The error and its causes, in words.
    pub(crate) fn chain_text(&self) -> String {
        let causes = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    /// The kind of evidence that the error gives. `None` if it does not show that frames cannot reach the peer.
    pub fn unreachable_kind(&self) -> Option<UnreachableKind> {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound, TimedOut};
        match self {
            // This may pass. If it does not, the route reports `ClosedAtOnce`.
            _ if self.was_closed_at_once() => None,
            Self::ClosedAtOnce { .. } => Some(UnreachableKind::Barred),
            Self::Connect { cause, .. } if cause.kind() == ConnectionRefused => Some(UnreachableKind::Refused),
            // The socket's directory is removed when its process ends, and is never made again under that name.
            Self::Connect { endpoint, cause } if endpoint.starts_with("ipc:") && cause.kind() == NotFound => {
                Some(UnreachableKind::Refused)
            }
            Self::Connect { cause, .. } if matches!(cause.kind(), HostUnreachable | NetworkUnreachable | TimedOut) => {
                Some(UnreachableKind::Silence)
            }
            Self::Silent { .. } => Some(UnreachableKind::Silence),
            Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::Endpoint { .. }
            | Self::NotOurs { .. }
            | Self::KeyMissing { .. }
            | Self::Lost {
                cause: EndError::UnexpectedData | EndError::GreetingTimeout(_) | EndError::Zmtp(_), ..
            } => Some(UnreachableKind::Barred),
            _ => None,
        }
    }
}

/// A peer that frames cannot reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// The endpoint at which it should take frames.
    pub endpoint: String,
    /// The kind of evidence.
    pub kind: UnreachableKind,
    /// The error in words.
    pub cause: String,
}

// === impl Unreachable ===

impl Unreachable {
    /// The peer at `endpoint`, if `error` shows that frames cannot reach it.
    pub(crate) fn by(endpoint: &str, error: &LinkError) -> Option<Self> {
        Some(Self { endpoint: endpoint.to_owned(), kind: error.unreachable_kind()?, cause: error.chain_text() })
    }
}

impl From<FrameError> for LinkError {
    fn from(cause: FrameError) -> Self {
        Self::Frame(cause)
    }
}

impl From<io::Error> for EndError {
    fn from(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => Self::Closed,
            kind => Self::Io(kind),
        }
    }
}
