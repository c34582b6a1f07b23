//! What is wrong with a GGUF file, or with a value asked of its metadata.

/// A file that is not usable: which field, where, what was expected and what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} at byte {offset}: expected {expected}, found {found}")]
pub struct GgufError {
    /// The field, such as `tensor count` or `dimensions of tensor "output.weight"`.
    pub field: String,
    /// Where in the file the field lies, in bytes from its start.
    pub offset: u64,
    /// What would have been accepted.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// A metadata value that is not there or not of the type asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata key {key}: expected {expected}, found {found}")]
pub struct MetadataError {
    /// The key.
    pub key: String,
    /// The type, or range, asked for.
    pub expected: String,
    /// What the file has.
    pub found: String,
}

/// `text` in quotes with control characters escaped, cut to a length fit for one line.
pub(super) fn quoted(text: &str) -> String {
    const CHARACTERS_MAX: usize = 64;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
