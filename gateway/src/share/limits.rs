//! The bounds of the shared port and of joining.

use std::time::Duration;

/// The port at which a cluster is shared, and how many of the next ones are tried if it is taken.
pub(crate) const PORT: u16 = 7946;
pub(super) const PORT_TRIES: u16 = 16;

/// Longest time for the TLS handshake of a new connection, and for a whole join afterwards: each is a round trip.
pub(super) const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(5);
pub(super) const JOIN_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest time for connecting, for the side that joins.
pub(super) const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Connections at a time that have not shown a member's certificate: handshakes, and joins. They end in seconds.
pub(super) const STRANGERS_MAX: usize = 32;

/// Longest request to join, in bytes: a token's id and secret, a name and a public key take under 500.
pub(super) const REQUEST_BYTES_MAX: u64 = 4 << 10;
/// Longest answer, in bytes: two certificates and a key take under 3,000.
pub(super) const REPLY_BYTES_MAX: u64 = 32 << 10;

/// Tokens that a cluster has at a time, and the time for which those that are over are kept, so that whoever comes with
/// one learns why.
pub(crate) const TOKENS_MAX: usize = 256;
pub(crate) const TOKEN_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Most bytes of a file of this machine's memberships.
pub(super) const FILE_BYTES_MAX: u64 = 64 << 10;
