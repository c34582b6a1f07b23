//! Further names by which requests may call the served model, such as those that a client has built in.

use std::str::FromStr;

use super::error::cut;
use super::server::allowed::Allowed;

/// Longest alias, in bytes: three times the longest id in use.
const NAME_BYTES_MAX: usize = 256;

/// A further name of the served model, or `*` for any name.
pub type ModelAlias = Allowed<ModelName>;

/// The name of a model: one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName(String);

/// A text that is not usable as a model's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model alias {found:?} is not usable: expected one word of at most {NAME_BYTES_MAX} bytes, or * for any name")]
pub struct ModelNameError {
    /// The text as it was given, cut to its first characters.
    found: String,
}

// === impl ModelName ===

impl FromStr for ModelName {
    type Err = ModelNameError;

    fn from_str(text: &str) -> Result<Self, ModelNameError> {
        let is_word = !text.chars().any(|letter| letter.is_whitespace() || letter.is_control());
        if is_word && (1..=NAME_BYTES_MAX).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ModelNameError { found: cut(text) })
        }
    }
}

impl AsRef<str> for ModelName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_its_own_name_alone_and_a_star_is_every_name() {
        let listed = ["claude-sonnet-5", "org/other:latest"].map(|text| text.parse::<ModelAlias>().unwrap());
        let admits = |name: &str| listed.iter().any(|alias| alias.admits(name));
        assert!(admits("claude-sonnet-5") && admits("org/other:latest"));
        for name in ["", "claude", "claude-sonnet-5-1", "Claude-sonnet-5"] {
            assert!(!admits(name), "{name}");
        }
        assert!("*".parse::<ModelAlias>().unwrap().admits("anything"));
    }

    #[test]
    fn an_alias_is_one_word() {
        for text in ["", "two words", "line\nbreak", &"x".repeat(300)] {
            let error = text.parse::<ModelAlias>().unwrap_err().to_string();
            assert!(error.contains("expected one word"), "{error}");
        }
    }
}
