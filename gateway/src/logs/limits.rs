//! The bounds of log files, each with its unit and its reason.

use std::time::Duration;

/// Most bytes of a file before it becomes the process's older one: a week of a cluster at rest, or an hour of `debug`.
pub(super) const FILE_BYTES_MAX: u64 = 2 << 20;
/// Most processes of a cluster whose files are kept. With two files each, a cluster has at most 128 MiB.
pub(super) const PROCESSES_MAX: usize = 32;
/// Most bytes at the end of a file that are read for its last lines, and of new lines that are read at once.
pub(super) const TAIL_BYTES_MAX: u64 = 1 << 20;
/// Most lines that are shown of the past.
pub const LINES_MAX: usize = 100_000;
/// Interval at which `baton logs --follow` looks for new lines.
pub const POLL_INTERVAL: Duration = Duration::from_millis(200);
