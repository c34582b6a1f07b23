//! Sharing a cluster with other machines: its own authority, the shared port, tokens, the side that joins, and how the
//! two find each other.
//!
//! The shared port serves the store's API to members over mutual TLS, and lets machines with a token in. What
//! stages and gateways do with the store is not known here.

mod authority;
mod discovery;
mod folder;
mod joining;
mod limits;
mod port;
mod protocol;
mod token;
mod tokens;

pub use authority::{Authority, STORE_NAME, ensure_cluster_key, note_address, shared_address};
pub use discovery::{Announcement, Announcer, DiscoveryError, addresses_of, list as list_announced, multicast};
pub use folder::{ClusterFolder, FolderError};
pub use joining::{JoinError, Membership, join, kept, kept_pin, own_address, socket_text};
pub(crate) use limits::PORT;
pub use port::{ShareListener, SharedPort, Sharing, StoreService};
pub use protocol::Refusal;
pub use token::{AuthorityPin, JoinToken, Secret, TokenError, hex_pin};
pub use tokens::TokenStoreError;
pub(crate) use tokens::{add, list, now_s, revoke};

#[cfg(test)]
mod tests;
