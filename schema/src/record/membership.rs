//! The two things that tie records to a cluster: the public mark of its key, the value of `key-mark`, and the proofs that members' records
//! carry. How both are made of the key is not known here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A public digest of the cluster key: tells keys apart and says nothing of the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyMark {
    /// 32 hex digits.
    pub mark: String,
}

/// A member's proof that it knows the cluster key, in hex: it is about one name, endpoint, process and lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proof(pub String);

impl fmt::Display for KeyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mark)
    }
}
