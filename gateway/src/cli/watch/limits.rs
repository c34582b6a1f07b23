//! The bounds of the watched page, each with its unit and its reason.

use std::time::Duration;

/// Interval at which the store is read where no gateway answers, and at which a pipe gets a page.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
/// Shortest time between two pages on a terminal: people see no more.
pub(super) const DRAW_PERIOD: Duration = Duration::from_millis(250);
/// Interval of the gateway's counters, as long as that of its samples.
pub(super) const COUNTERS_PERIOD: Duration = Duration::from_secs(2);
/// Longest time to wait for the first byte of the events.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a byte after which a stream of events counts as broken: the server sends something every 10 s.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(25);
/// Most bytes of one event. The whole state of a cluster of 1,000 stages has about 1 MB.
pub(super) const STATE_BYTES_MAX: usize = 8 << 20;
/// Rows of the series and lines of the log that are kept, as many as the server keeps.
pub(super) const ROWS_MAX: usize = 450;
pub(super) const LINES_MAX: usize = 400;
/// Time after which the load of a link that reports nothing counts as zero: stages report every few seconds.
pub(super) const LOAD_AGE_MAX: Duration = Duration::from_secs(8);
/// Lines that a pipe gets of each list that has no end of its own. A terminal gets what fits.
pub(super) const PIPE_LINES_MAX: usize = 20;
