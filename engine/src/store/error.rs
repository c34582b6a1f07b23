//! Errors between a caller and its store.

use super::{LeaseId, Revision};

/// A store operation that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer, or an answer that the store cannot serve now. A commit may or may not have been applied.
    #[error("cannot reach the store at {endpoints}: {reason}; is etcd running?")]
    Unavailable {
        /// The endpoints that were tried, comma-separated.
        endpoints: String,
        /// The cause.
        reason: String,
    },
    /// The history a watch asked for is not kept any more.
    #[error("the store keeps no history before revision {oldest}: read again and watch from there")]
    Compacted {
        /// The oldest revision a watch can still start from.
        oldest: Revision,
    },
    /// The lease expired or was revoked.
    #[error("lease {id} is unknown to the store: it expired or was revoked")]
    LeaseGone {
        /// The lease.
        id: LeaseId,
    },
    /// The request itself is wrong. Trying again does not help.
    #[error("the store refused the request: {reason}")]
    Invalid {
        /// The fault in it.
        reason: String,
    },
    /// The store's user lacks a right.
    #[error("etcd's user {user} may not {asked} (etc/keys.md has the whole role)")]
    Denied {
        /// The user.
        user: String,
        /// The deed, and the right that it takes.
        asked: String,
    },
    /// The store does not let the user in.
    #[error("etcd does not let the user {user} in: {reason}")]
    Login {
        /// The user.
        user: String,
        /// etcd's reason, and what to do about it.
        reason: String,
    },
    /// The store is full or over a quota of its own.
    #[error("the store has no room: {reason}")]
    Full {
        /// The bound that was reached.
        reason: String,
    },
    /// A value without which the cluster cannot be told from another cannot be read.
    #[error("the value at {key} cannot be used: {reason}")]
    Unusable {
        /// The key.
        key: String,
        /// The fault in it.
        reason: String,
    },
}

// === impl StoreError ===

impl StoreError {
    /// This error. A missing right is named by `asked`.
    #[must_use]
    pub(super) fn on(self, asked: impl FnOnce() -> String) -> Self {
        match self {
            Self::Denied { user, .. } => Self::Denied { user, asked: asked() },
            other => other,
        }
    }
}
