//! Names and numbers that identify things across processes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest accepted name, in bytes: names become parts of store keys and of socket paths.
pub(crate) const NAME_BYTES_MAX: usize = 63;

/// A name that cannot be used in a store key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "name {found:?} is not usable: expected 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit"
)]
pub struct NameError {
    /// The name that was given, truncated to one character more than the longest legal name.
    pub found: String,
}

fn check_name(name: &str) -> Result<(), NameError> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    let starts_well = name.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
    if starts_well && name.len() <= NAME_BYTES_MAX && name.bytes().all(legal) {
        Ok(())
    } else {
        Err(NameError { found: name.chars().take(NAME_BYTES_MAX + 1).collect() })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                check_name(name).map(|()| Self(name.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                check_name(&name).map(|()| Self(name))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a cluster. It is the first part of all its keys.
    ClusterName
}
name! {
    /// The name of a stage process, unique in its cluster.
    StageName
}
name! {
    /// The name of a token with which machines join a cluster.
    TokenId
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The number of a placement. Every frame carries it, and a stage drops a frame of another generation.
    Generation(u64)
}
number! {
    /// One incarnation of a gateway's pipeline. Higher means newer. Steps count from zero in each epoch.
    Epoch(u64)
}
number! {
    /// The number of a micro-batch within its epoch. Each stage receives the steps without a gap.
    Step(u64)
}
number! {
    /// One sequence of tokens being generated. A request with `n = 3` has three.
    SequenceId(u64)
}
number! {
    /// Number of times that a sequence was started again from its history.
    Attempt(u32)
}

number! {
    /// One of the models that a cluster serves one after the other, with members and a placement of its own.
    Deployment(u32)
}

impl Deployment {
    /// The deployment of a cluster that has never changed its model while it served.
    pub const FIRST: Self = Self(0);
}

/// A digest that distinguishes model files. It covers the file's length, its header and a sample of each tensor, in
/// hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_break_a_key_is_refused() {
        for name in ["", "a/b", "Mini", "ä", "-a", ".hidden", "a b", &"x".repeat(64)] {
            assert!(name.parse::<StageName>().is_err(), "{name:?} was accepted");
        }
        assert_eq!("mini-1.local".parse::<StageName>().unwrap().as_str(), "mini-1.local");
    }

    #[test]
    fn a_bad_name_is_refused_in_json_too() {
        assert!(serde_json::from_str::<StageName>("\"a/b\"").is_err());
    }
}
