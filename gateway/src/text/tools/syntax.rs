//! The interface between the parser of calls and the syntaxes in which models write them.

use std::fmt::Debug;

use super::known_tools::KnownTools;
use crate::text::answer_part::AnswerPart;

/// Reads calls in one syntax. It sees the text that is not consumed yet, and says how much of it to consume.
///
/// 1. `begin` gets text that begins with one of `opens`, or with a bracket at a place that `bare` names. It consumes
///    nothing unless a call of a known tool begins there.
/// 2. After a call began, `step` is called until it returns [`Step::Closed`].
/// 3. With `end` no more text comes: neither returns `More`.
pub(super) trait CallSyntax: Debug + Send {
    /// The marks at which calls begin.
    fn opens(&self) -> &[&'static str];

    /// The places at which calls begin without a mark.
    fn bare(&self) -> Bare {
        Bare::Nowhere
    }

    /// Reads the beginning of a call.
    fn begin(&mut self, text: &str, end: bool, tools: &KnownTools) -> Begin;

    /// Reads on: the arguments, the text behind them, and further calls.
    fn step(&mut self, text: &str, end: bool, tools: &KnownTools) -> Step;
}

/// The places at which a bracket begins a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// None.
    Nowhere,
    /// The start of the answer, and after a call: `{` or `[`.
    Start,
    /// The start of any line: `{` or `[`.
    Line,
}

/// The result of [`CallSyntax::begin`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The text may become a call.
    More,
    /// It is not the beginning of a call.
    NotACall,
    /// A call begins. `parts` are those of the first `used` bytes.
    Call { used: usize, parts: Vec<AnswerPart> },
}

/// The result of [`CallSyntax::step`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More text is needed.
    More,
    /// The first `used` bytes are consumed. There is at least one byte or one part.
    Took { used: usize, parts: Vec<AnswerPart> },
    /// The first `used` bytes are consumed, and what follows is not of these calls.
    Closed { used: usize },
}

/// A call whose arguments are complete.
pub(super) fn whole_call(name: String, arguments: String) -> Vec<AnswerPart> {
    vec![AnswerPart::Call { name }, AnswerPart::Arguments(arguments), AnswerPart::CallEnd]
}
