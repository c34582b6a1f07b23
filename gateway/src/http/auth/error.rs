//! The reasons that API keys are refused. No text contains a secret, or a part of what may be one.

use super::key_name::KeyName;
use crate::http::limits::{API_KEYS_MAX, API_SECRET_BYTES_MAX, API_SECRET_BYTES_MIN, KEY_NAME_BYTES_MAX};

/// The reason that an API key, or several of them together, cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// The secret is too short or too long.
    #[error(
        "an API key's secret has {found} characters: expected {API_SECRET_BYTES_MIN} to {API_SECRET_BYTES_MAX}, such \
         as `baton key` prints"
    )]
    Length {
        /// Its length, in bytes.
        found: usize,
    },
    /// A character that no header can carry, or that separates keys.
    #[error(
        "an API key's secret cannot be used because of its character {at}: expected visible ASCII characters without a \
         comma, such as `baton key` prints"
    )]
    Character {
        /// The position of the character, counted from 1.
        at: usize,
    },
    /// The part before the colon is no name.
    #[error(
        "an API key's name, which is the part before the first colon, cannot be used: expected 1 to \
         {KEY_NAME_BYTES_MAX} of a-z, A-Z, 0-9, '.', '_' and '-', beginning with a letter or a digit"
    )]
    Name,
    /// Two keys have one name.
    #[error("two API keys have the name {name}: expected one name for each")]
    NameTwice {
        /// The name.
        name: KeyName,
    },
    /// One secret has two names.
    #[error("the API keys {first} and {second} have the same secret: expected one secret for each")]
    SecretTwice {
        /// The name that came first.
        first: KeyName,
        /// The other name.
        second: KeyName,
    },
    /// There are too many keys.
    #[error("{found} API keys: expected at most {API_KEYS_MAX}")]
    Many {
        /// Number of keys.
        found: usize,
    },
}
