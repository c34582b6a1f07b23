//! The links between processes: ZeroMQ PUSH to PULL, messages of a frame header and activations.
//!
//! ```text
//! PUSH ──────────────── a socket in a private directory ────────────────────▶ PULL      one machine
//!  heartbeat ◀───────── another one ─────────────────────────────────▶ door
//!
//! PUSH ─▶ relay ─────── Noise over TCP, with the cluster key ────────▶ acceptor ─▶ PULL      two machines
//! ```
//!
//! Both ends give each other signs of life, so that either sees within [`limits::SILENCE_MAX`] that the other's process has
//! stopped, or that nothing passes between them any more.
//!
//! The ZeroMQ codec only ever meets bytes of the same user, whom the directory lets in, or of a holder of the key, and those
//! only after their declared lengths were checked. A connection promises order and a bound on what it holds; it does not promise
//! delivery: whoever sends keeps a window and a deadline. Give it a current-thread runtime: a hop there costs half of what
//! it costs on one with several threads. It knows nothing of placements, generations or steps.

mod acceptor;
mod activations;
mod chunks;
mod endpoint;
mod error;
mod heartbeat;
mod in_flight;
mod inbound;
mod key;
pub mod limits;
mod message;
mod noise;
mod outbound;
mod pipe;
mod refusals;
mod runtime_dir;
mod task;
mod zmtp;

pub use activations::{activations_to_bytes, bytes_to_activations};
pub use error::{Absence, EndError, LinkError, Unreachable};
pub use inbound::Inbound;
pub use key::{ClusterKey, KeyError};
pub use message::Message;
pub use noise::HandshakeError;
pub use outbound::Outbound;
pub use zmtp::ZmtpError;

/// Where a process listens.
#[derive(Debug, Clone)]
pub enum Listen {
    /// On this machine only, for processes of the same user.
    Ipc,
    /// For other machines too, if they know the key.
    Tcp {
        /// The name or address of this machine that the others are to use.
        host: String,
        /// The port; the system chooses one when there is none.
        port: Option<u16>,
        /// What they must know.
        key: ClusterKey,
    },
}

// === impl Listen ===

impl Listen {
    /// Listening at the address `host` and, if given, `port`; on this machine only when there is no `host`.
    ///
    /// # Errors
    /// [`LinkError::KeyMissing`] when there is a host and no key.
    pub fn new(host: Option<String>, port: Option<u16>, key: Option<ClusterKey>) -> Result<Self, LinkError> {
        match (host, key) {
            (None, _) => Ok(Self::Ipc),
            (Some(host), Some(key)) => Ok(Self::Tcp { host, port, key }),
            (Some(host), None) => Err(LinkError::KeyMissing { endpoint: format!("listening on {host}") }),
        }
    }
}
