//! The errors of a key handshake.

use schema::Protocol;

/// The version of the bytes that follow, frames included.
pub(super) const PROTOCOL: u8 = Protocol::CURRENT.0;

/// The reason for which a handshake failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HandshakeError {
    /// The other side closed the connection, for example because it has another key.
    #[error("it closed the connection during the key handshake: expected the same cluster key on both sides")]
    Closed,
    /// The first bytes are no handshake.
    #[error("a handshake message declares {found} bytes: expected {expected}")]
    Length {
        /// The declared length.
        found: usize,
        /// The expected length.
        expected: usize,
    },
    /// The message was made with another key.
    #[error("its cluster key is another one, or it belongs to another cluster")]
    Key,
    /// The first message was made with the key, and what follows it was not: somebody sends recorded bytes again.
    #[error("it sent the first message of another connection again, without the cluster key")]
    Replay,
    /// The other side has another version.
    #[error("it speaks protocol {found}: expected {PROTOCOL}, that of this version of baton")]
    Protocol {
        /// Its protocol number.
        found: u8,
    },
    /// Another program listens there, or connects.
    #[error("it is no baton process: expected the greeting BTN")]
    NotBaton,
    /// The handshake took too long.
    #[error("it did not finish the key handshake in time")]
    Timeout,
    /// Its place was given to another peer.
    #[error("too many handshakes at once")]
    TooMany,
    /// The system's error.
    #[error("{0}")]
    Io(std::io::ErrorKind),
}
