//! Limits on the use of a key.

use std::num::NonZeroU32;

/// One limit of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Limit {
    /// There is none.
    #[default]
    Unlimited,
    /// At most this number.
    AtMost(NonZeroU32),
}

/// The limits of one key, which all requests that open a page with it share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests in a minute. A key that was not used for a minute may spend all of them at once.
    pub requests_per_minute: Limit,
    /// Requests at the same time. A stream counts until its end.
    pub concurrent_requests: Limit,
}

/// The limits that the line of a key sets for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OwnLimits {
    pub(super) requests_per_minute: Option<Limit>,
    pub(super) concurrent_requests: Option<Limit>,
}

// === impl Limit ===

impl Limit {
    /// The number. `None` if there is no limit.
    pub(super) fn number(self) -> Option<NonZeroU32> {
        match self {
            Self::Unlimited => None,
            Self::AtMost(number) => Some(number),
        }
    }
}

// === impl OwnLimits ===

impl OwnLimits {
    /// These limits. One that is not set is taken from `shared`.
    pub(super) fn or(self, shared: KeyLimits) -> KeyLimits {
        KeyLimits {
            requests_per_minute: self.requests_per_minute.unwrap_or(shared.requests_per_minute),
            concurrent_requests: self.concurrent_requests.unwrap_or(shared.concurrent_requests),
        }
    }
}
