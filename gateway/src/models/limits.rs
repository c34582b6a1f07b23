//! The bounds of a model's files, wherever they come from.

/// Longest header of a GGUF file, in bytes: ten times that of the largest known vocabularies.
pub(crate) const GGUF_HEADER_BYTES_MAX: u64 = 128 << 20;
/// Longest file, in bytes: as long as a file may be on usual file systems, and eight times the largest known model.
pub(crate) const FILE_BYTES_MAX: u64 = 16 << 40;
/// Maximum number of files of a model.
pub(crate) const FILES_MAX: usize = 1024;
