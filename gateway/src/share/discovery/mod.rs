//! Shared clusters on the local network, by multicast DNS and DNS-SD (RFC 6762, RFC 6763).
//!
//! Discovery gives addresses and text to show, never trust: whoever joins checks the pin of its token. Nothing needs
//! it, and nothing here knows tokens.

mod announcement;
mod announcer;
mod browser;
mod limits;
mod probe;

pub use announcement::Announcement;
pub use announcer::Announcer;
pub use browser::{DiscoveryError, addresses_of, list};
pub use probe::multicast;
