//! The digest of an API key's secret. The secret itself is not kept.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

/// Context of the digest. It separates digests of API keys from everything else that is derived with BLAKE3.
const CONTEXT: &str = "baton 1 digest of an API key";

/// BLAKE3 of a secret. Two digests are compared in a time that does not depend on their bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyDigest([u8; 32]);

// === impl KeyDigest ===

impl KeyDigest {
    /// The digest of `secret`.
    pub(super) fn of(secret: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, secret))
    }

    /// True, as a value that no branch depends on, if both are digests of the same secret.
    pub(super) fn matches(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(not shown)")
    }
}
