//! The version of what the members of a cluster say to each other.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of everything that passes between members: frames, greetings of links, and the meaning of records. It
/// grows by one when a member of the version before would misread, or refuse, what this one says; versions of baton
/// with the same protocol serve together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

// === impl Protocol ===

impl Protocol {
    /// That of this version of baton. 4 since frames are `BTN3`.
    pub const CURRENT: Self = Self(4);

    /// That of records that name none.
    pub(crate) fn unnamed() -> Self {
        Self(4)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
