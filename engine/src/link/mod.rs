//! The links between processes: ZeroMQ PUSH to PULL, messages of a frame header and activations.
//!
//! ```text
//! PUSH ──────────────── a socket in a private directory ────────────────────▶ PULL      one machine
//!  heartbeat ◀───────── another one ─────────────────────────────────▶ acceptor
//!
//! PUSH ─▶ relay ─────── Noise over TCP, with the cluster key ────────▶ acceptor ─▶ PULL      two machines
//! ```
//!
//! Both ends send heartbeats. So each of them notices within [`limits::HEARTBEAT_TIMEOUT`] that the other's process has
//! stopped, or that nothing passes between them any more.
//!
//! The ZeroMQ codec receives only bytes of the same user, whom the directory's mode admits, or of a peer with the key,
//! and those only after a check of their declared lengths. A connection promises order and a bound on the messages that
//! it holds. It does not promise delivery: the sender keeps a window and a deadline. Run it on a current-thread
//! runtime: a hop there costs half of its cost on a runtime with several threads. This module knows nothing of
//! placements, generations or steps.

mod acceptor;
mod activations;
mod advertised;
mod chunks;
mod endpoint;
mod error;
mod handshake_error;
mod heartbeat;
mod in_flight;
mod inbound;
mod interface;
mod key;
pub mod limits;
mod message;
mod noise;
mod outbound;
mod own;
mod paths;
mod pipe;
mod refusals;
mod runtime_dir;
mod sender_mark;
mod silence;
mod task;
mod throughput;
mod zmtp;

pub use activations::{activations_to_bytes, bytes_to_activations};
pub(crate) use advertised::AdvertisedAddresses;
pub use error::{EndError, LinkError, Unreachable, UnreachableKind};
pub use handshake_error::HandshakeError;
pub use inbound::Inbound;
pub use key::{ClusterKey, KeyError};
pub use message::Message;
pub(crate) use outbound::Measured;
pub use outbound::Outbound;
pub(crate) use own::own_addresses;
pub(crate) use paths::Paths;
pub(crate) use refusals::Refusals;
pub(crate) use silence::Silence;
pub use zmtp::ZmtpError;

/// The reach of a process's listening sockets.
#[derive(Debug, Clone)]
pub enum Listen {
    /// On this machine only, for processes of the same user.
    Ipc,
    /// For other machines too, if they have the key.
    Tcp {
        /// The name or address of this machine that the other machines use.
        host: String,
        /// The port. `None` lets the system choose one.
        port: Option<u16>,
        /// The key that peers must have.
        key: ClusterKey,
        /// True if it also listens at every other address of this machine.
        every_address: bool,
    },
}

// === impl Listen ===

impl Listen {
    /// Listens at the address `host` and, if given, at `port`. Without a `host`, listens on this machine only.
    ///
    /// # Errors
    /// [`LinkError::KeyMissing`] if there is a host and no key.
    pub fn new(host: Option<String>, port: Option<u16>, key: Option<ClusterKey>) -> Result<Self, LinkError> {
        match (host, key) {
            (None, _) => Ok(Self::Ipc),
            (Some(host), Some(key)) => Ok(Self::Tcp { host, port, key, every_address: false }),
            (Some(host), None) => Err(LinkError::KeyMissing { endpoint: format!("listening on {host}") }),
        }
    }

    /// The same at every address of this machine, if it listens for other machines at all.
    #[must_use]
    pub fn at_every_address(self) -> Self {
        match self {
            Self::Ipc => Self::Ipc,
            Self::Tcp { host, port, key, .. } => Self::Tcp { host, port, key, every_address: true },
        }
    }
}
