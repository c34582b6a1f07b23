//! Regular expressions: checked here, because llguidance's errors about them have no place.

use llguidance::regex_to_lark;

use super::{GrammarError, Position};

/// Letters whose classes (`\d`, `\w`, `\s`) are ASCII, as people who write them expect of a number or a name.
const ASCII_CLASSES: &str = "dws";

/// The Lark grammar of the texts that `pattern` matches as a whole.
///
/// # Errors
/// [`GrammarError::Invalid`] with the place of the mistake.
pub(super) fn to_lark(pattern: &str) -> Result<String, GrammarError> {
    if pattern.is_empty() {
        return Err(GrammarError::invalid("expected a regular expression, found nothing"));
    }
    let error = match check(pattern) {
        // Translated first, it could end within an escape.
        Ok(()) => return Ok(format!("start: /{}/\n", regex_to_lark(pattern, ASCII_CLASSES))),
        Err(error) => error,
    };
    Err(GrammarError::Invalid {
        reason: error.reason,
        position: Some(Position::Text { line: error.line, column: error.column }),
    })
}

/// A mistake in a regular expression.
pub(super) struct RegexError {
    pub(super) reason: String,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Checks the syntax of `pattern`.
pub(super) fn check(pattern: &str) -> Result<(), RegexError> {
    let (reason, start) = match regex_syntax::Parser::new().parse(pattern) {
        Ok(_) => return Ok(()),
        Err(regex_syntax::Error::Parse(error)) => (error.kind().to_string(), error.span().start),
        Err(regex_syntax::Error::Translate(error)) => (error.kind().to_string(), error.span().start),
        Err(error) => return Err(RegexError { reason: error.to_string(), line: 1, column: 1 }),
    };
    Err(RegexError { reason, line: start.line, column: start.column })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let error = to_lark("ab(c").unwrap_err().to_string();
        assert_eq!(error, "invalid grammar at line 1, column 3: unclosed group");
        let error = to_lark("a(?=b)").unwrap_err().to_string();
        assert!(error.contains("line 1, column 2: look-around"), "{error}");
        assert!(to_lark("a\\").unwrap_err().to_string().contains("line 1, column 2: incomplete escape"));
        assert!(to_lark("").unwrap_err().to_string().contains("found nothing"));
    }

    #[test]
    fn classes_are_ascii_and_slashes_are_escaped() {
        assert_eq!(to_lark(r"\d/\w").unwrap(), "start: /[0-9]\\/[0-9a-zA-Z_]/\n");
    }
}
