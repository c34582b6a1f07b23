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

/// True if requests may call the model `served` by `name`.
pub(super) fn names(served: &str, aliases: &[ModelAlias], name: &str) -> bool {
    served == name || aliases.iter().any(|alias| alias.admits(name))
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

    fn aliases(texts: &[&str]) -> Vec<ModelAlias> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_model_has_its_own_name_and_those_that_are_listed() {
        let listed = aliases(&["claude-sonnet-5", "org/other:latest"]);
        for name in ["tiny", "claude-sonnet-5", "org/other:latest"] {
            assert!(names("tiny", &listed, name), "{name}");
        }
        for name in ["", "claude", "claude-sonnet-5-1", "Tiny"] {
            assert!(!names("tiny", &listed, name), "{name}");
        }
        assert!(names("tiny", &aliases(&["*"]), "anything"));
    }

    #[test]
    fn an_alias_is_one_word() {
        for text in ["", "two words", "line\nbreak", &"x".repeat(300)] {
            let error = text.parse::<ModelAlias>().unwrap_err().to_string();
            assert!(error.contains("expected one word"), "{error}");
        }
    }
}
