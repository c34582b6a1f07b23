//! The errors of compiling a grammar and of following it.

use std::fmt;
use std::time::Duration;

/// A grammar cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum GrammarError {
    /// The source is larger than a bound.
    #[error("grammar too large: expected at most {expected} {unit}, found {found}")]
    TooLarge {
        /// The unit of the bound, in the plural.
        unit: &'static str,
        /// The most that is accepted.
        expected: usize,
        /// The number found.
        found: usize,
    },
    /// The source uses something that exists but that a grammar cannot enforce here.
    #[error("unsupported: {keyword}{}: {hint}", at(.position))]
    Unsupported {
        /// The keyword, attribute or form that is not supported.
        keyword: String,
        /// The supported forms, or the one to write instead.
        hint: String,
        /// Its place in the source, if it is known.
        position: Option<Position>,
    },
    /// The source is malformed.
    #[error("invalid grammar{}: {reason}", at(.position))]
    Invalid {
        /// The fault of the source, in words.
        reason: String,
        /// The place in the source, if it is known.
        position: Option<Position>,
    },
    /// No text has the required form.
    #[error("the grammar allows no text: {reason}")]
    Unsatisfiable {
        /// The contradiction.
        reason: String,
    },
    /// The grammar needs more work or memory than a bound.
    #[error("the grammar is too complex: {reason}; make it smaller or less ambiguous")]
    TooComplex {
        /// The bound that was reached.
        reason: String,
    },
    /// Compiling took too long.
    #[error("the grammar is too complex: it did not compile within {most:?}; make it smaller or less ambiguous")]
    TooSlow {
        /// The longest time.
        most: Duration,
    },
    /// Too many grammars are being compiled.
    #[error("{most} grammars are being compiled already; try again later")]
    Busy {
        /// The most at once.
        most: usize,
    },
    /// No thread could be started to compile on.
    #[error("cannot start a thread to compile the grammar")]
    Thread(#[source] std::io::Error),
    /// The compiler panicked, which is a fault of this program.
    #[error("compiling the grammar failed: {reason}")]
    Internal {
        /// The panic's message.
        reason: String,
    },
    /// The vocabulary cannot be used with grammars.
    #[error("this model's vocabulary cannot be used with a grammar: {reason}")]
    Vocabulary {
        /// The fault of the vocabulary, in words.
        reason: String,
    },
}

/// A place in a grammar's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// A JSON pointer into a schema, as a URI fragment: `#/properties/name`.
    Pointer(String),
    /// A place in a text. Lines and columns count from 1, columns in characters.
    Text {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
}

/// A sequence cannot follow its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// The grammar does not allow this token here. The matcher is unchanged.
    #[error("the grammar does not allow token {token} after {accepted} tokens")]
    Refused {
        /// The token.
        token: u32,
        /// Tokens accepted before.
        accepted: usize,
    },
    /// More tokens were to be taken back than were accepted. The matcher is unchanged.
    #[error("cannot take back {tokens} tokens: only {accepted} were accepted")]
    TooFarBack {
        /// The tokens to take back.
        tokens: usize,
        /// The accepted tokens.
        accepted: usize,
    },
    /// The text is incomplete, and no token of the vocabulary continues it.
    #[error("no token of this model continues the text that the grammar requires")]
    DeadEnd,
    /// The next mask needs more work or memory than a bound.
    #[error("the grammar is too complex to go on: {reason}")]
    TooComplex {
        /// The bound that was reached.
        reason: String,
    },
    /// The parser failed, which is a fault of this program.
    #[error("following the grammar failed: {reason}")]
    Internal {
        /// The parser's message.
        reason: String,
    },
}

// === impl GrammarError ===

impl GrammarError {
    /// A malformed source, at a place that is not known.
    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into(), position: None }
    }
}

// === impl Position ===

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(pointer) => formatter.write_str(pointer),
            Self::Text { line, column } => write!(formatter, "line {line}, column {column}"),
        }
    }
}

/// " at …", or nothing.
fn at(position: &Option<Position>) -> String {
    position.as_ref().map_or_else(String::new, |position| format!(" at {position}"))
}
