//! A setting that lists values which requests may have, or allows any with `*`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// `*`, or one value. Values are compared by their text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String", bound(deserialize = "T: FromStr, T::Err: fmt::Display"))]
pub enum Allowed<T> {
    /// `*`: any value.
    Any,
    /// This value.
    Named(T),
}

// === impl Allowed ===

impl<T: AsRef<str>> Allowed<T> {
    /// True if a request may have `value`.
    pub(crate) fn admits(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Named(named) => named.as_ref() == value,
        }
    }

    /// The value, unless any is allowed.
    pub(crate) fn named(&self) -> Option<&str> {
        match self {
            Self::Any => None,
            Self::Named(named) => Some(named.as_ref()),
        }
    }
}

impl<T: FromStr> FromStr for Allowed<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        match text.trim() {
            "*" => Ok(Self::Any),
            text => text.parse().map(Self::Named),
        }
    }
}

impl<T: FromStr> TryFrom<String> for Allowed<T> {
    type Error = T::Err;

    fn try_from(text: String) -> Result<Self, T::Err> {
        text.parse()
    }
}

impl<T: AsRef<str>> fmt::Display for Allowed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Named(named) => f.write_str(named.as_ref()),
        }
    }
}
