//! Sharing a cluster with other machines: its own authority, the shared port, tokens, and the side that joins.
//!
//! The shared port serves the embedded store's API to members over mutual TLS, and lets machines with a token in. What
//! stages and gateways do with the store is not known here.

mod authority;
mod folder;
mod joining;
mod limits;
mod port;
mod protocol;
mod token;
mod tokens;

pub use authority::{Authority, STORE_NAME, ensure_cluster_key, note_address, shared_address};
pub use folder::{ClusterFolder, FolderError};
pub use joining::{JoinError, Membership, join, kept, own_address, socket_text};
pub(crate) use limits::PORT;
pub use port::{ShareListener, SharedPort, Sharing};
pub use protocol::Refusal;
pub use token::{AuthorityPin, JoinToken, Secret, TokenError};
pub use tokens::TokenStoreError;
pub(crate) use tokens::{add, list, now_s, revoke};

#[cfg(test)]
mod tests;
