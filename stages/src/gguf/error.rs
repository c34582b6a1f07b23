//! Errors of a GGUF file, and of a value requested from its metadata.

/// An unusable file: the field, its offset, the expected and the found value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} at byte {offset}: expected {expected}, found {found}")]
pub struct GgufError {
    /// The field, such as `tensor count` or `dimensions of tensor "output.weight"`.
    pub field: String,
    /// Offset of the field, in bytes from the file's start.
    pub offset: u64,
    /// The accepted values.
    pub expected: String,
    /// The value found.
    pub found: String,
}

/// A metadata value that is absent or not of the requested type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata key {key}: expected {expected}, found {found}")]
pub struct MetadataError {
    /// The key.
    pub key: String,
    /// The requested type or range.
    pub expected: String,
    /// The value in the file.
    pub found: String,
}

/// `text` in quotes with control characters escaped, cut to 64 characters so that it fits one line.
pub(super) fn quoted(text: &str) -> String {
    const CHARACTERS_MAX: usize = 64;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
