//! The name of an API key: a label of metrics and a field of the log. It is no secret.

use std::fmt;
use std::str::FromStr;

use super::error::ApiKeyError;
use crate::http::limits::KEY_NAME_BYTES_MAX;

/// Letters, digits, `.`, `_` and `-`, of which the first is a letter or a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName(String);

// === impl KeyName ===

impl KeyName {
    /// The name of the key without one that comes as number `number`, counted from 1.
    pub(super) fn numbered(number: usize) -> Self {
        Self(format!("key-{number}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = ApiKeyError;

    /// The error does not show the text, because it may be a part of a secret.
    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let begins_well = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if begins_well && text.len() <= KEY_NAME_BYTES_MAX && text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ApiKeyError::Name)
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_letters_digits_and_three_signs() {
        for name in ["alice", "team-2", "ci.example_1", "7", &"a".repeat(64)] {
            assert_eq!(name.parse::<KeyName>().unwrap().as_str(), name);
        }
        for text in ["", "-a", ".a", "a b", "a\"b", "jürgen", "a/b", "a=b", &"a".repeat(65)] {
            assert_eq!(text.parse::<KeyName>(), Err(ApiKeyError::Name), "{text:?} was accepted");
        }
    }
}
