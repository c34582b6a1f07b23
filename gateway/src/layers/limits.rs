//! The bounds of fetching and serving layers.

use std::time::Duration;

/// Bytes of a chunk, the unit that is checked. One at each end of a run of layers is fetched whole and kept in part.
pub(super) const CHUNK_BYTES: u64 = 1 << 20;
/// Chunks that are asked for at once, so that a round trip costs little beside the bytes.
pub(super) const CHUNKS_AT_ONCE: u64 = 8;

/// Answers that wait to be written while the next one comes: making bytes last takes as long as one or two.
pub(super) const RUNS_AHEAD: usize = 1;

/// Longest head of a message, in bytes: a fingerprint or a sentence.
pub(super) const HEAD_BYTES_MAX: u32 = 4 << 10;
/// Longest manifest, in bytes: 64 for each chunk of a model of a terabyte.
pub(super) const MANIFEST_BYTES_MAX: u64 = 80 << 20;
/// Longest map of a partial model's ranges, in bytes.
pub(super) const MAP_BYTES_MAX: u64 = 4 << 20;

/// Machines that fetch at the same time. Another is told to come again.
pub(super) const FETCHES_MAX: usize = 8;
/// Bytes a second that a machine serves to all others together: two gigabit links, encrypted by a tenth of a core.
pub(super) const SERVED_BYTES_PER_SECOND: u64 = 256 << 20;
/// The same while tokens are computed, so that streams lose next to nothing.
pub(super) const SERVED_BYTES_PER_SECOND_BUSY: u64 = 32 << 20;

/// Pieces a second in which an answer is sent at either rate: each of 8 ms, so that a frame waits behind a short one,
/// and timers, which are late by up to a millisecond, cost little.
pub(super) const PIECES_PER_SECOND: u64 = 128;
/// Time after a step for which a stage counts as one that computes: longer than any pause between two steps of a
/// stream, so that the rate is low for as long as one runs, and soon high again after it.
pub(super) const ACTIVE_FOR: Duration = Duration::from_secs(1);

/// Longest time of connecting with the handshake, of an answer's head, and of its body.
pub(super) const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
pub(super) const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);
pub(super) const BODY_WAIT_MAX: Duration = Duration::from_secs(120);
/// Longest wait for a manifest: the other side may have to read its whole model first.
pub(super) const MANIFEST_WAIT_MAX: Duration = Duration::from_secs(1800);
/// Longest time for which a machine that hashes its model lets one wait before it says how far it is: short files are
/// done by then, and a progress is seen to move.
pub(super) const HASHING_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Longest pause of a machine between two of its requests.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);
/// Pause before a source that failed is asked again, and the longest time without a byte after which a fetch fails.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(500);
pub(super) const STALL_MAX: Duration = Duration::from_secs(600);
/// Machines that may be asked for layers: as many as share a large model.
pub(super) const SOURCES_MAX: usize = 64;
/// Time for which a machine is left out that sent wrong bytes, or refused for a reason that does not pass by itself:
/// its file may be mended meanwhile.
pub(super) const LEFT_OUT_TIME: Duration = Duration::from_secs(60);
/// Time for which a machine that did not answer, or was busy, is asked only if no other has the bytes: each try may
/// take as long as a head is waited for.
pub(super) const SILENT_TIME: Duration = Duration::from_secs(60);
/// Connections at a time to the port for layers that have not shown a member's certificate.
pub(super) const STRANGERS_MAX: usize = 16;
/// Runs of layers that a stage's record names at most as those on its disk. A disk with more has moved a lot; it says
/// the first ones.
pub(super) const STORED_RUNS_MAX: usize = 64;
/// Tries of a machine that starts, before it looks for the model elsewhere.
pub(super) const OPEN_TRIES: u32 = 3;

/// Fetched bytes after which they are made to last and noted in the map: what kill -9 costs.
pub(super) const SAVE_BYTES: u64 = 16 << 20;
