//! The bounds of a transfer, each with its unit and its reason.

use crate::json_size::JsonSize;

/// Most bytes of a document. A store's whole reply is bounded alike.
pub const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// JSON of a document, which lists the layers of a thousand stages several times. Parsed, so much takes at most 0.7 GB.
pub(super) const JSON_MAX: JsonSize = JsonSize { values: 4 << 20, lists: 256 << 10 };

/// Most bytes of a value or a key that an error repeats.
pub(super) const SHOWN_BYTES_MAX: usize = 200;

/// Most keys or members that an error names.
pub(super) const SHOWN_NAMES_MAX: usize = 5;
