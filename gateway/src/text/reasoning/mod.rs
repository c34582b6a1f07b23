//! The reasoning that models write before their answers: its marks, a splitter, and a bound on its length.

mod format;
mod gate;
mod splitter;

pub use format::ReasoningFormat;
pub use gate::{ReasoningGate, ReasoningTokens};
pub(super) use splitter::ReasoningSplitter;
