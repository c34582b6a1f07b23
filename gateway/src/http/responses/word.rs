//! Reads a parameter that is one of a few words.

use serde_json::Value;

use crate::http::error::ApiError;
use crate::http::params::{Params, out_of_range, wrong_type};

/// The parameter `key`, if it is there.
///
/// # Errors
/// A 400 that lists the words.
pub(super) fn read(
    params: &Params<'_>,
    key: &str,
    accepted: &[&'static str],
) -> Result<Option<&'static str>, ApiError> {
    params.get(key).map(|found| of(&params.path(key), found, accepted)).transpose()
}

/// `found` as one of the `accepted` words. `path` names it in an error.
///
/// # Errors
/// A 400 that lists the words.
pub(super) fn of(path: &str, found: &Value, accepted: &[&'static str]) -> Result<&'static str, ApiError> {
    let text = found.as_str().ok_or_else(|| wrong_type(path, &list(accepted), found))?;
    let known = accepted.iter().copied().find(|word| *word == text);
    known.ok_or_else(|| out_of_range(path, &list(accepted), found))
}

/// The words as an error lists them.
pub(super) fn list(words: &[&str]) -> String {
    format!("one of {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_lists_the_words_and_names_the_whole_path() {
        let value = json!({"effort": "huge", "absent": null, "number": 5});
        let params = Params::at("reasoning", "an object", &value).unwrap();
        let error = read(&params, "effort", &["low", "high"]).unwrap_err();
        assert_eq!(error.param(), Some("reasoning.effort"));
        assert!(error.message().contains("expected one of low, high, found the string \"huge\""), "{error:?}");
        assert_eq!(read(&params, "number", &["low"]).unwrap_err().code(), Some("invalid_type"));
        assert_eq!(read(&params, "absent", &["low"]), Ok(None));
    }
}
