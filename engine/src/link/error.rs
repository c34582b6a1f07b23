//! What can go wrong on a link.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use schema::frame::FrameError;

use super::limits::{ACTIVATION_BYTES_MAX, SOCKET_PATH_BYTES_MAX};
use super::noise::HandshakeError;
use super::zmtp::ZmtpError;

/// Why a link could not be made, or a message not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A message whose header or activations are wrong. The link goes on.
    #[error("bad message")]
    Frame(#[source] FrameError),
    /// A message that is not a header with activations or a header alone. The link goes on.
    #[error("bad message of {found} parts: expected a header, and activations only where there are any")]
    Parts {
        /// How many it has.
        found: usize,
    },
    /// Activations too large for any link.
    #[error("activations of {found} bytes: expected at most {ACTIVATION_BYTES_MAX}")]
    TooLarge {
        /// Their length.
        found: usize,
    },
    /// Text that is no endpoint.
    #[error("endpoint {found:?}: expected ipc:///path or tcp://host:port")]
    Endpoint {
        /// What was given, cut to a printable length.
        found: String,
    },
    /// A host that others cannot connect to.
    #[error("cannot advertise {host:?}: expected a name or address of this machine that the others can reach")]
    Advertise {
        /// What was given.
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
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// TCP without a key.
    #[error(
        "{endpoint} needs the cluster key: make one with `baton key`, and give every process the same one in \
         BATON_CLUSTER_KEY or with --cluster-key-file"
    )]
    KeyMissing {
        /// What was to be served or connected to.
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
        /// Its length.
        found: usize,
    },
    /// A local socket that another user owns.
    #[error("socket {path} belongs to user {found}: expected {expected}, who runs this process")]
    NotOurs {
        /// The socket.
        path: PathBuf,
        /// Its owner.
        found: u32,
        /// Our user.
        expected: u32,
    },
    /// The private directory of our sockets cannot be made.
    #[error(
        "cannot make a private directory for sockets in {parent} (XDG_RUNTIME_DIR or TMPDIR chooses another place)"
    )]
    RuntimeDir {
        /// Where.
        parent: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Listening failed.
    #[error("cannot listen on {endpoint}")]
    Listen {
        /// Where.
        endpoint: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Connecting failed.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// Where.
        endpoint: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The two sides did not find that they have the same key.
    #[error("{endpoint} did not accept this process")]
    Handshake {
        /// Where.
        endpoint: String,
        /// Why.
        #[source]
        cause: HandshakeError,
    },
    /// Whoever answers there closes every connection before anything is said.
    #[error("{endpoint} has closed every connection at once for {lasted:?}")]
    HangsUp {
        /// Where.
        endpoint: String,
        /// For how long.
        lasted: Duration,
        /// The last time.
        #[source]
        cause: Box<LinkError>,
    },
    /// Nobody answered in time.
    #[error("{endpoint} did not answer within {waited:?}")]
    Silent {
        /// Where.
        endpoint: String,
        /// For how long.
        waited: Duration,
    },
    /// The connection ended; connect anew.
    #[error("connection to {endpoint} ended")]
    Lost {
        /// Where to.
        endpoint: String,
        /// Why.
        #[source]
        cause: EndError,
    },
    /// The peer takes nothing more; connect anew.
    #[error("{endpoint} took nothing for {waited:?} with {messages} messages ({bytes} bytes) waiting")]
    Stalled {
        /// Who.
        endpoint: String,
        /// How long it was given.
        waited: Duration,
        /// Messages accepted and not gone.
        messages: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// ZeroMQ's own word.
    #[error("zeromq failed: {0}")]
    Zeromq(String),
}

/// Why a connection ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EndError {
    /// One side closed it.
    #[error("the other side closed it")]
    Closed,
    /// Nothing came for too long.
    #[error("nothing was heard for {0:?}")]
    Silence(Duration),
    /// It did not show in time that it speaks ZMTP.
    #[error("no ZMTP greeting within {0:?}")]
    Late(Duration),
    /// Its bytes were no ZMTP, or declared more than any message has.
    #[error(transparent)]
    Zmtp(#[from] ZmtpError),
    /// It said something where only signs of life belong.
    #[error("something else than signs of life came")]
    Speech,
    /// Its bytes were not sealed with the key.
    #[error("a sealed message was forged or damaged")]
    Seal,
    /// The operating system's word.
    #[error("{0}")]
    Io(io::ErrorKind),
}

/// How it shows that nobody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// The system that was asked says that nobody listens there: the process has ended.
    Refused,
    /// Nothing is heard: it has stopped, or its machine has, or the network between is cut.
    Silence,
    /// Whoever answers there does not take this process for one of its cluster, or the way there is barred: another key, another
    /// version, another program, a name that does not resolve here, a socket of another user.
    Barred,
}

// === impl LinkError ===

impl LinkError {
    /// Whether it is about one message only: count it, drop it, go on receiving.
    pub fn is_about_one_message(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Parts { .. } | Self::TooLarge { .. })
    }

    /// Whether a connection was taken and then closed before anything was said.
    pub(crate) fn was_hung_up(&self) -> bool {
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

    /// The error with its causes.
    pub(crate) fn in_words(&self) -> String {
        let causes = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }

    /// The kind of absence that the error shows; `None` where it does not show that frames cannot be brought to the peer.
    pub fn absence(&self) -> Option<Absence> {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound, TimedOut};
        match self {
            // It may pass; where it does not, the route says so.
            _ if self.was_hung_up() => None,
            Self::HangsUp { .. } => Some(Absence::Barred),
            Self::Connect { cause, .. } if cause.kind() == ConnectionRefused => Some(Absence::Refused),
            // Its directory went after it, and is never made again under that name.
            Self::Connect { endpoint, cause } if endpoint.starts_with("ipc:") && cause.kind() == NotFound => {
                Some(Absence::Refused)
            }
            Self::Connect { cause, .. } if matches!(cause.kind(), HostUnreachable | NetworkUnreachable | TimedOut) => {
                Some(Absence::Silence)
            }
            Self::Silent { .. } => Some(Absence::Silence),
            Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::Endpoint { .. }
            | Self::NotOurs { .. }
            | Self::KeyMissing { .. }
            | Self::Lost { cause: EndError::Speech | EndError::Late(_) | EndError::Zmtp(_), .. } => {
                Some(Absence::Barred)
            }
            _ => None,
        }
    }
}

/// A peer that frames cannot be brought to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// The endpoint at which it should take frames.
    pub endpoint: String,
    /// The kind of absence.
    pub absence: Absence,
    /// The same in words.
    pub cause: String,
}

// === impl Unreachable ===

impl Unreachable {
    /// The peer at `endpoint`, if `error` shows that frames cannot be brought to it.
    pub(crate) fn by(endpoint: &str, error: &LinkError) -> Option<Self> {
        Some(Self { endpoint: endpoint.to_owned(), absence: error.absence()?, cause: error.in_words() })
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
