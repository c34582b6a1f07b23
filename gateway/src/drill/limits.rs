//! The bounds of a drill, each with its unit and its reason.

use std::time::Duration;

/// Fewest tokens of the answer: the fault comes in the middle, and some must follow it.
pub const TOKENS_MIN: u32 = 8;
/// Most tokens of the answer, which are all kept for the comparison.
pub const TOKENS_MAX: u32 = 4096;
/// Tokens of the answer: a few seconds with a small model.
pub const DEFAULT_TOKENS: u32 = 128;
/// Seed of the answer. Any would do.
pub const DEFAULT_SEED: u64 = 7;
/// Timeout for a page of the gateway.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time without a token after which a fault is undone: the others cannot do without the stage.
pub(super) const STALL_MAX: Duration = Duration::from_secs(20);
/// Time without a token after which a stream is given up.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Most answers that are taken for the undisturbed one, until one was not begun twice.
pub(super) const UNDISTURBED_TRIES: u32 = 3;
/// A gap after the fault is a pause if it is this many times the longest undisturbed one.
pub(super) const PAUSE_FACTOR: u32 = 3;
/// A shorter gap is no pause, whatever the undisturbed ones were.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Time for the cluster to be whole again.
pub(super) const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval of the questions whether it is.
pub(super) const WHOLE_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Time for a short program (`sh`, `ps`, `nft`).
pub(super) const PROGRAM_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a cluster of the drill's own to serve, without the time in which its model is fetched.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// Time for it to stop before it is killed.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of what a program printed that an error repeats.
pub(super) const OUTPUT_BYTES_MAX: usize = 2000;
