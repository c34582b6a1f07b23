//! Bounds on the declarations of a safetensors file, in addition to the bound that everything must fit the file.

/// Longest header, in bytes. The format's own bound.
pub(super) const HEADER_BYTES_MAX: u64 = 100_000_000;

/// Maximum number of tensors: a description costs about 200 bytes of memory. The largest known files, with a tensor for
/// every expert, have under 10,000.
pub(super) const TENSORS_MAX: usize = 262_144;

/// Maximum number of dimensions of a tensor. Those of language models have at most four.
pub(super) const DIMENSIONS_MAX: usize = 8;

/// Maximum number of files of a model: six times that of the largest known one.
pub(super) const FILES_MAX: usize = 1024;
