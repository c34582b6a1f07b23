//! Bounds on the declarations of a GGUF file, in addition to the bound that everything must fit the file.

/// Alignment of tensor bytes if the file names none, in bytes. The format's own default.
pub const ALIGNMENT_DEFAULT: u64 = 32;

/// Least alignment accepted, in bytes: norms are read in place as 4-byte floats, and the format requires multiples of
/// 8.
pub const ALIGNMENT_MIN: u64 = 8;

/// Greatest alignment accepted, in bytes: large pages (2 MiB) are the largest alignment in use.
pub const ALIGNMENT_MAX: u64 = 2 << 20;

/// Maximum number of metadata entries: an entry costs about 100 bytes of memory and may take as few as 14 in the file.
/// Models have under 100.
pub(super) const METADATA_ENTRIES_MAX: u64 = 16_384;

/// Maximum number of tensors: a description costs about 150 bytes of memory and may take as few as 33 in the file. The
/// largest known models, with a tensor for every expert, have under 50,000.
pub(super) const TENSORS_MAX: u64 = 65_536;

/// Longest metadata key, in bytes. The format's own bound.
pub(super) const KEY_BYTES_MAX: u64 = 65_535;

/// Longest tensor name, in bytes. The format's own bound.
pub(super) const TENSOR_NAME_BYTES_MAX: u64 = 64;

/// Maximum number of dimensions of a tensor. The format's own bound.
pub(super) const DIMENSIONS_MAX: u32 = 4;

/// Maximum nesting depth of arrays: each level is one stack frame of the reader, and no model uses more than two.
pub(super) const NESTING_MAX: u32 = 4;
