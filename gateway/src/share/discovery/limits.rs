//! The bounds of discovery. Everything that is heard comes from whoever is on the network.

use std::time::Duration;

/// Time for which announcements are awaited. Responders answer a question within 120 ms (RFC 6762), and a machine whose
/// packet was lost gets the next question a second later.
pub(super) const BROWSE_TIME: Duration = Duration::from_millis(1500);

/// Longest wait for a packet to come back to the machine that sent it.
pub(super) const PROBE_WAIT_MAX: Duration = Duration::from_millis(300);
/// Addresses of this machine that are probed: each takes two sockets.
pub(super) const PROBED_ADDRESSES_MAX: usize = 16;

/// Announcements that a list has, and those of one cluster whose addresses are tried.
pub(super) const LISTED_MAX: usize = 64;
pub(super) const CANDIDATES_MAX: usize = 8;
/// Addresses that are taken of one announcement: a machine has one in each network, and perhaps one of IPv6.
pub(super) const ADDRESSES_MAX: usize = 4;

/// Characters of a model's and of a machine's name that are announced, and that are taken from others.
pub(super) const MODEL_CHARS_MAX: usize = 80;
pub(super) const MACHINE_CHARS_MAX: usize = 63;
/// Bytes of a label in DNS (RFC 1035).
pub(super) const LABEL_BYTES_MAX: usize = 63;

/// Records and timers that the responder keeps of what others send; it is started anew beyond them. `mdns-sd` bounds
/// them by their time to live only, which the sender chooses.
pub(super) const RESPONDER_RECORDS_MAX: i64 = 8192;
/// Interval of that check, and the wait before a responder that failed is started again.
pub(super) const RESPONDER_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for the goodbye, which is one packet for each interface.
pub(super) const GOODBYE_WAIT_MAX: Duration = Duration::from_millis(300);
