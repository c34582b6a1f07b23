//! The bounds of a bundle, each with its unit and its reason.

/// Most bytes of one log file that a bundle has: its end, about ten thousand lines.
pub const LOG_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one member of the archive, such as a page of metrics of a large cluster.
pub(super) const MEMBER_BYTES_MAX: usize = 8 << 20;
/// Fewest characters of a secret that is replaced wherever it stands. A shorter one would be found in other words.
pub(super) const SECRET_CHARS_MIN: usize = 6;
/// Hex digits of a run that may be a key: 64, as of a cluster key or an API key's secret.
pub(super) const KEY_DIGITS: usize = 64;
