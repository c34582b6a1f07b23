//! The error of a machine that brings another model than its cluster serves.

use schema::Fingerprint;

use super::live_members::LiveMembers;

/// The cluster serves another model file.
#[derive(Debug, thiserror::Error)]
#[error(
    "cluster {cluster} serves {name} with fingerprint {expected}: {path} has {found}, so it is another file; {members}"
)]
pub struct OtherModel {
    /// The cluster's name.
    pub cluster: String,
    /// The members that are alive, and what to do.
    pub members: LiveMembers,
    /// The cluster's model.
    pub name: String,
    /// Its fingerprint.
    pub expected: Fingerprint,
    /// The local file.
    pub path: String,
    /// The local file's fingerprint.
    pub found: Fingerprint,
}
