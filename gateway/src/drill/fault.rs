//! The faults that a drill can bring about.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A fault of one stage, or of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// Kill the stage's process, as a crash does (SIGKILL)
    #[default]
    Kill,
    /// Stop the stage's process without ending it (SIGSTOP), and let it go on after the answer (SIGCONT)
    Freeze,
    /// Drop every packet to and from the stage's port, until the answer is complete (Linux, root, nft)
    Cut,
    /// Kill the etcd that the drill itself has started, and start it again after the answer
    Store,
}

// === impl Fault ===

impl Fault {
    /// The fault as something that happened to its victim.
    pub(super) fn happened(self) -> &'static str {
        match self {
            Self::Kill => "is killed",
            Self::Freeze => "is frozen",
            Self::Cut => "is cut off",
            Self::Store => "is killed",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Cut => "cut",
            Self::Store => "store",
        })
    }
}
