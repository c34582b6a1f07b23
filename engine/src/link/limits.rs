//! Every bound of a link, with its unit and its reason.

use std::time::Duration;

use schema::frame::ROWS_MAX;

/// Largest second part of a message, in bytes: the most rows of a micro-batch at 16,384 f32 values each, the width of
/// the widest models in use. It bounds the memory that a receiver reserves for one declared length.
pub const ACTIVATION_BYTES_MAX: usize = ROWS_MAX as usize * 16_384 * size_of::<f32>();
/// Bytes that a sender has accepted and that have not left its queue: one of the largest messages always goes, several
/// of the usual ones may queue.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// Messages that a sender has accepted and that have not left its queue. This is far above any window of micro-batches,
/// so that reaching it means a stalled peer.
pub const IN_FLIGHT_MESSAGES_MAX: usize = 256;

/// Longest time for connecting, with all handshakes: the hosts of one pipeline are on one network. This and
/// [`HEARTBEAT_TIMEOUT`] together are the time after which a stopped peer is noticed: two seconds of the three that a
/// stream may pause then.
pub const CONNECT_WAIT_MAX: Duration = Duration::from_millis(800);
/// After this time without an answer, a second attempt to connect starts next to the first: the system repeats a lost
/// TCP SYN only after a second.
pub const CONNECT_AGAIN: Duration = Duration::from_millis(250);
/// A peer that has closed every connection at once for this time cannot be reached. A process that ends and a network
/// that recovers take less.
pub const CLOSED_AT_ONCE_MAX: Duration = Duration::from_secs(2);
/// Longest time that a send waits for room in the queue. After that the peer counts as stalled.
pub const SEND_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest time for a new connection to complete the key handshake, then again for its first chunk, and then again to
/// complete the ZMTP greeting.
pub const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Interval between heartbeats. On one machine they are always sent, between machines only while nothing else is sent.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(150);
/// A connection without a byte for this time counts as dead. It is eight heartbeats, so that a process that waits for a
/// processor, behind a build and more compute threads than there are cores, does not count as stopped.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(1200);
/// A connection over which nothing came for this time is doubted: if the peer answers at another of its addresses while
/// nothing comes, the frames go there. It is four heartbeats: a peer whose heartbeats wait for a processor answers
/// nowhere.
pub const DOUBT_AFTER: Duration = Duration::from_millis(600);
/// Pause before the other addresses are tried again while the doubt lasts.
pub const DOUBT_AGAIN: Duration = Duration::from_millis(200);
/// Time after which the next address of a peer is dialled beside those that have not answered: well above the round
/// trip of any cable, and above that of most wireless networks.
pub const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(60);
/// Interval at which each address of a peer is tried, to know its round trip. The first time is after
/// [`FIRST_PROBE_AFTER`].
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Time from the first connection to a peer until its other addresses are tried: the first frames come first.
pub const FIRST_PROBE_AFTER: Duration = Duration::from_millis(500);
/// Time after which an address that was found better is tried again, before frames go there.
pub const PROBE_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Time after which an address that did not answer is tried again. It doubles each time, up to [`DEAD_PROBE_EVERY`].
pub const DEAD_PROBE_AFTER: Duration = Duration::from_secs(2);
/// Longest interval at which an address is tried that did not answer the last times: somebody who plugs a cable in
/// waits for no longer.
pub const DEAD_PROBE_EVERY: Duration = Duration::from_secs(30);
/// Interval at which the throughput of an address that answers is measured: cables change seldom.
pub const BURST_EVERY: Duration = Duration::from_secs(60);
/// The same for a peer that does not measure, as one of an older version.
pub const BURST_AGAIN: Duration = Duration::from_secs(600);
/// Throughputs that are kept of an address. The greatest of them counts: the others shared the cable with frames.
pub const BURSTS_KEPT: usize = 3;
/// Bytes of one chunk of a burst: ten packets, so that frames get in between.
pub const BURST_CHUNK_BYTES: usize = 16 << 10;
/// Most bytes of a burst: a millisecond of a cable of 10 Gbit/s.
pub const BURST_BYTES_MAX: usize = 1 << 20;
/// Longest time for which a burst is sent: a slow cable must not hold up frames.
pub const BURST_TIME_MAX: Duration = Duration::from_millis(10);
/// Longest time for a burst and its answer: what the system had taken for a slow cable still has to go there.
pub const BURST_WAIT_MAX: Duration = Duration::from_secs(2);
/// Round trips that are kept of an address. The least of them counts: the others had to wait for something else.
pub const ROUND_TRIPS_KEPT: usize = 4;
/// Shortest time between two moves to better addresses, so that links do not flap.
pub const MOVE_EVERY: Duration = Duration::from_secs(10);
/// Number of times in a row that an address must be found better than the one in use.
pub const BETTER_TIMES: u32 = 2;
/// Silence that is kept on a connection before the frames go on over another one, beside two of its round trips: the
/// last frame must not be overtaken.
pub const MOVE_PAUSE: Duration = Duration::from_millis(20);
/// Longest time that a connection may take to become silent for a move. After it, the move is given up.
pub const MOVE_WAIT_MAX: Duration = Duration::from_secs(1);
/// Time for which a connection stays open after a move, for what the systems still hold of it.
pub const OLD_LINK_KEPT: Duration = Duration::from_secs(2);
/// Interval at which a process looks at its interfaces, for those that have come or gone.
pub const INTERFACES_EVERY: Duration = Duration::from_secs(5);
/// Pause after a failed accept, so that a process out of file descriptors does not spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At most one log line about refused connections in this time. The next line gives the number of refusals between.
pub const REFUSAL_LOG_EVERY: Duration = Duration::from_secs(1);

/// Longest time that a process waits for macOS to list its network ports, once, before it joins.
pub const PORTS_WAIT_MAX: Duration = Duration::from_secs(2);

/// Connections served at once, local and remote together. A gateway receives from every stage, a stage from its
/// predecessor and the gateways.
pub const CONNECTIONS_MAX: usize = 128;
/// Connections that have not yet proved that they have the key. One more closes the oldest of the address that has
/// most: a peer with the key needs one round trip, a peer without it waits for its deadline.
pub const HANDSHAKES_MAX: usize = 64;

/// Largest Noise message, in bytes: the protocol's own limit.
pub const SEALED_BYTES_MAX: usize = 65_535;
/// Bytes the seal adds to a Noise message.
pub const SEAL_BYTES: usize = 16;
/// Most bytes in one read of a pipe: those that fit a Noise message.
pub const CHUNK_BYTES_MAX: usize = SEALED_BYTES_MAX - SEAL_BYTES;
/// Longest ZMTP command, in bytes. The only one in use is a READY of about 40.
pub const COMMAND_BYTES_MAX: u64 = 512;

/// Longest path of a socket, in bytes: the smallest limit of the supported systems is 104, with a closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 100;
