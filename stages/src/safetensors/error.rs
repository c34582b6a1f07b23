//! Errors of a safetensors file.

/// An unusable file: the field, the expected and the found value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct SafetensorsError {
    /// The field, such as `shape of tensor "lm_head.weight"`.
    pub field: String,
    /// The accepted values.
    pub expected: String,
    /// The value found.
    pub found: String,
}

// === impl SafetensorsError ===

impl SafetensorsError {
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are given at the call")]
    pub(super) fn new(field: impl Into<String>, expected: impl Into<String>, found: impl ToString) -> Self {
        Self { field: field.into(), expected: expected.into(), found: found.to_string() }
    }
}

/// `text` in quotes with control characters escaped, cut to 96 characters so that it fits one line.
pub(super) fn quoted(text: &str) -> String {
    const CHARACTERS_MAX: usize = 96;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
