//! Every bound of a link, with its unit and its reason.

use std::time::Duration;

use schema::frame::ROWS_MAX;

/// Largest second part of a message, in bytes: the most rows of a micro-batch at 16,384 f32 values each, the widest
/// models in use. It bounds what one declared length can make a receiver reserve.
pub const ACTIVATION_BYTES_MAX: usize = ROWS_MAX as usize * 16_384 * size_of::<f32>();
/// Bytes a sender has accepted and not yet taken from its queue: one of the largest messages always goes, several of
/// the usual ones may queue.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// Messages a sender has accepted and not yet taken from its queue: far above any window of micro-batches, so that
/// reaching it means a stalled peer.
pub const IN_FLIGHT_MESSAGES_MAX: usize = 256;

/// How long connecting may take, with all handshakes: hosts of one pipeline are on one network. Together with
/// [`SILENCE_MAX`] it is what passes before a peer that stopped is known to have: two seconds of three that a stream may
/// pause then.
pub const CONNECT_WAIT_MAX: Duration = Duration::from_millis(800);
/// A try to connect without an answer for so long gets another one beside it: the system repeats a lost greeting of TCP
/// only after a second.
pub const CONNECT_AGAIN: Duration = Duration::from_millis(250);
/// Who has closed every connection at once for so long cannot be reached: a process that ends and a network that mends take less.
pub const HANGS_UP_MAX: Duration = Duration::from_secs(2);
/// How long a send waits for room before the peer counts as stalled.
pub const SEND_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a newcomer may take to show that it knows the key, and then that it speaks ZMTP.
pub const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often a process says that it is alive: always on one machine, between machines where nothing else is said.
pub const PING_EVERY: Duration = Duration::from_millis(150);
/// After so long without a byte a connection counts as dead: eight pings, so that a process that waits for a processor
/// behind a build and more compute threads than there are cores is not taken for one that stopped.
pub const SILENCE_MAX: Duration = Duration::from_millis(1200);
/// Pause after a failed accept, so that a process out of file descriptors does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At most one log line about refused connections in this time; the next one says how many there were.
pub const REFUSAL_LOG_EVERY: Duration = Duration::from_secs(1);

/// Connections served at once, local and remote together: a gateway hears from every stage, a stage from its
/// predecessor and the gateways.
pub const CONNECTIONS_MAX: usize = 128;
/// Connections that have not yet shown that they know the key. When one more comes, the oldest goes: a peer with the
/// key needs a round trip, one without waits for its deadline.
pub const HANDSHAKES_MAX: usize = 64;

/// Largest Noise message, in bytes; the protocol's own limit.
pub const SEALED_BYTES_MAX: usize = 65_535;
/// Bytes the seal adds to a Noise message.
pub const SEAL_BYTES: usize = 16;
/// Most bytes in one read of a pipe: what fits a Noise message.
pub const CHUNK_BYTES_MAX: usize = SEALED_BYTES_MAX - SEAL_BYTES;
/// Longest ZMTP command, in bytes; ours is a READY of about 40.
pub const COMMAND_BYTES_MAX: u64 = 512;

/// Longest path of a socket, in bytes: the smallest limit of the supported systems is 104, with a closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 100;
