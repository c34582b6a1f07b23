//! The bounds of a transfer, each with its unit and its reason.

/// Most bytes of a document. A store's whole reply is bounded alike.
pub const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// Most bytes of a value or a key that an error repeats.
pub(super) const SHOWN_BYTES_MAX: usize = 200;

/// Most keys or members that an error names.
pub(super) const SHOWN_NAMES_MAX: usize = 5;
