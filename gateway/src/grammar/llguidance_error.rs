//! Sorts llguidance's errors, which are texts, into this module's.

use super::schema::SUPPORTED_KEYWORDS;
use super::{GrammarError, MatcherError, Position};

/// Parts of messages about one of llguidance's limits.
const LIMITS: &[&str] = &[
    "too big",
    "schema too large",
    "stack level exceeded",
    "fuel exhausted",
    "precomputation failed",
    "Too many items",
    "Current row has",
    "too many states",
    "too many expressions",
    "class too large",
    "Unable to determine if regex is empty",
    "can't determine if patternProperty",
];
/// Beginnings of messages about what a JSON schema asks for and llguidance cannot do, each with the keyword.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("oneOf constraints are not supported", "oneOf"),
    ("min/maxProperties only supported", "minProperties and maxProperties"),
    ("circular references with sibling keys", "$ref"),
    ("patternProperty regexes", "patternProperties"),
    ("Value for 'multipleOf' has too many digits", "multipleOf"),
    ("Unknown format", "format"),
];

/// The error of compiling a grammar. `definitions` are the places of a schema's definitions, by number.
pub(super) fn compiling(message: &str, definitions: &[String]) -> GrammarError {
    let message = &clean(message, definitions);
    if let Some(reason) = message.strip_prefix("panic: ") {
        return special_token(reason)
            .unwrap_or_else(|| GrammarError::Internal { reason: format!("the grammar compiler panicked: {reason}") });
    }
    if let Some(keys) = message.strip_prefix("Unimplemented keys: ") {
        let keyword = keys.trim_matches(['[', ']']).replace('"', "");
        return unsupported(&keyword, format!("supported are {}", SUPPORTED_KEYWORDS.join(", ")));
    }
    if let Some((_, keyword)) = UNSUPPORTED.iter().find(|(start, _)| message.starts_with(start)) {
        return unsupported(keyword, message.clone());
    }
    if message.starts_with("Failed to generate regex for integer range")
        || message.starts_with("Failed to generate regex for float range")
    {
        return unsupported("minimum and maximum", "supported are bounds of less than 1e18 in size".to_owned());
    }
    if let Some(error) = special_token(message) {
        return error;
    }
    if message.contains("Unsatisfiable schema") || message.contains("unsatisfiable") || message == "NoExtensionBias" {
        let reason = message.replace("Unsatisfiable schema: ", "").replace("NoExtensionBias", "it has no finite text");
        return GrammarError::Unsatisfiable { reason };
    }
    if is_limit(message) {
        return GrammarError::TooComplex { reason: message.clone() };
    }
    let (position, reason) = position(message);
    GrammarError::Invalid { reason: reason.to_owned(), position }
}

/// The error of following a grammar.
pub(super) fn following(message: &str) -> MatcherError {
    let reason = clean(message, &[]);
    if reason == "NoExtensionBias" {
        MatcherError::DeadEnd
    } else if is_limit(&reason) || reason.starts_with("lexer error") || reason.starts_with("Current row has") {
        MatcherError::TooComplex { reason }
    } else {
        MatcherError::Internal { reason }
    }
}

/// The first line of `message`, with the client's own names of definitions. The lines after it quote the source or
/// list a backtrace.
fn clean(message: &str, definitions: &[String]) -> String {
    let mut line = message.lines().next().unwrap_or_default().trim_end().to_owned();
    for (number, place) in definitions.iter().enumerate().rev() {
        line = line.replace(&format!("#/$defs/d{number}"), place);
    }
    line
}

fn is_limit(message: &str) -> bool {
    LIMITS.iter().any(|limit| message.contains(limit))
}

fn unsupported(keyword: &str, hint: String) -> GrammarError {
    GrammarError::Unsupported { keyword: keyword.to_owned(), hint, position: None }
}

/// The error of a Lark grammar that names a special token. This vocabulary has none that a grammar could name.
fn special_token(message: &str) -> Option<GrammarError> {
    let named = message.contains("unknown special token") || message.contains("missing special token");
    named.then(|| unsupported("special tokens (<…>)", "a grammar can require text only".to_owned()))
}

/// The place at the beginning of a message of the Lark parser (`3(14): …` or `at 3(14): …`), and the rest of it.
fn position(message: &str) -> (Option<Position>, &str) {
    let place = || {
        let rest = message.strip_prefix("at ").unwrap_or(message);
        let (line, rest) = rest.split_once('(')?;
        let (column, reason) = rest.split_once("): ")?;
        // The parser's 0 means the end of the text.
        let line = line.parse().ok().filter(|&line| line > 0)?;
        Some((Position::Text { line, column: column.parse().ok()? }, reason))
    };
    match place() {
        Some((position, reason)) => (Some(position), reason),
        None => (None, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(message: &str) -> String {
        compiling(message, &["#/$defs/item".to_owned(), "#/properties/a".to_owned()]).to_string()
    }

    #[test]
    fn unsupported_keywords_are_named() {
        let error = compiled("Unimplemented keys: [\"else\", \"if\"]");
        assert!(error.starts_with("unsupported: else, if: supported are $ref, "), "{error}");
        let error = compiled("oneOf constraints are not supported. Enable 'coerce_one_of' option");
        assert!(error.starts_with("unsupported: oneOf: oneOf constraints"), "{error}");
    }

    #[test]
    fn places_are_taken_from_the_message() {
        assert_eq!(
            compiled("3(14): Expected value (at x)\n 3 | a"),
            "invalid grammar at line 3, column 14: Expected value (at x)"
        );
        assert_eq!(
            compiled("at 1(2): unknown name: \"b\"\n"),
            "invalid grammar at line 1, column 2: unknown name: \"b\""
        );
        assert_eq!(compiled("at EOF: Expected value"), "invalid grammar: at EOF: Expected value");
        assert_eq!(compiled("at 0(0): lost"), "invalid grammar: at 0(0): lost");
    }

    #[test]
    fn definitions_have_the_names_that_the_client_gave_them() {
        let error = compiled("Definition not found: #/$defs/d1");
        assert_eq!(error, "invalid grammar: Definition not found: #/properties/a");
    }

    #[test]
    fn limits_and_contradictions_are_told_apart_from_mistakes() {
        assert!(matches!(compiling("schema too large", &[]), GrammarError::TooComplex { .. }));
        assert!(matches!(compiling("NoExtensionBias", &[]), GrammarError::Unsatisfiable { .. }));
        let panicked = compiling("panic: index out of bounds\n<backtrace>\n 0: …", &[]).to_string();
        assert_eq!(panicked, "compiling the grammar failed: the grammar compiler panicked: index out of bounds");
        assert_eq!(following("NoExtensionBias\n<non-verbose/>"), MatcherError::DeadEnd);
        assert!(matches!(following("lexer error: too many states: 9 >= 9"), MatcherError::TooComplex { .. }));
        assert!(matches!(following("panic: x"), MatcherError::Internal { .. }));
    }
}
