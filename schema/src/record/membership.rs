//! The two values that tie records to a cluster: the public mark of its key, the value of `key-mark`, and the proofs in
//! the records of members. This module does not know how both are derived from the key.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A public digest of the cluster key. It distinguishes keys and reveals nothing of the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyMark {
    /// 32 hex digits.
    pub mark: String,
}

/// A member's proof that it has the cluster key, in hex. It is valid for one name, endpoint, process and lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proof(pub String);

impl fmt::Display for KeyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mark)
    }
}
