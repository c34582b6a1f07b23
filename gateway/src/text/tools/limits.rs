//! The bounds of the parsers of calls, each with its unit and its reason.

/// Bytes of the text before a call's arguments. A tool's name has at most 64.
pub(super) const HEADER_BYTES_MAX: usize = 1 << 10;
/// Bytes that are held back until it is clear that they are a call: arguments that come before the name, a call in
/// Python's syntax, or a value whose type is not known before its end. More is taken for text, or passed on.
pub(super) const HELD_BYTES_MAX: usize = 64 << 10;
/// Bytes of white space that are held back, as a call may follow, and white space before a call is no text.
pub(super) const SPACE_BYTES_MAX: usize = 256;
/// Deepest nesting of lists and dictionaries in Python's syntax. It bounds the parser's recursion.
pub(super) const PYTHON_DEPTH_MAX: usize = 32;
