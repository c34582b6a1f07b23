//! Bounds on what a GGUF file may declare, beyond the bound that everything must fit the file.

/// Alignment of tensor bytes where the file names none, in bytes; the format's own default.
pub const ALIGNMENT_DEFAULT: u64 = 32;

/// Least alignment accepted, in bytes: norms are read in place as 4-byte floats, and the format wants multiples of 8.
pub const ALIGNMENT_MIN: u64 = 8;

/// Greatest alignment accepted, in bytes: large pages (2 MiB) are the most anybody aligns to.
pub const ALIGNMENT_MAX: u64 = 2 << 20;

/// Most metadata entries: an entry costs about 100 bytes of memory and may take 13 in the file. Models have under 100.
pub(super) const METADATA_ENTRIES_MAX: u64 = 16_384;

/// Most tensors: a description costs about 150 bytes of memory and may take 33 in the file. The largest models known,
/// with every expert on its own, stay under 50,000.
pub(super) const TENSORS_MAX: u64 = 65_536;

/// Longest metadata key, in bytes; the format's own bound.
pub(super) const KEY_BYTES_MAX: u64 = 65_535;

/// Longest tensor name, in bytes; the format's own bound.
pub(super) const TENSOR_NAME_BYTES_MAX: u64 = 64;

/// Most dimensions of a tensor; the format's own bound.
pub(super) const DIMENSIONS_MAX: u32 = 4;

/// How deep arrays of arrays may nest: each level is one stack frame of the reader, and no model uses more than two.
pub(super) const NESTING_MAX: u32 = 4;
