//! A source in the form that llguidance compiles: Lark, or a JSON schema with options.

use std::fmt::Write;

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use super::limits::CHOICES_MAX;
use super::{GrammarError, GrammarSource, WhiteSpace, gbnf, regex, schema};

/// A source in llguidance's form.
pub(super) struct Translation {
    pub(super) source: TopLevelGrammar,
    /// The parts of a schema that were left out.
    pub(super) unenforced: Vec<String>,
    /// The places of a schema's definitions, by number: `#/$defs/d0` in `source` is the first.
    pub(super) definitions: Vec<String>,
    /// The control tokens that it may choose.
    pub(super) marks: Vec<u32>,
}

// === impl Translation ===

impl Translation {
    /// Checks and translates `source`.
    ///
    /// # Errors
    /// [`GrammarError`] when it is malformed, unsupported, or over a bound.
    pub(super) fn new(source: &GrammarSource) -> Result<Self, GrammarError> {
        match source {
            GrammarSource::JsonObject => Self::schema(&json!({"type": "object"}), true, WhiteSpace::Chosen),
            GrammarSource::JsonSchema { schema, strict, white_space } => Self::schema(schema, *strict, *white_space),
            GrammarSource::Regex(pattern) => Ok(Self::lark(regex::to_lark(pattern)?)),
            GrammarSource::Choice(choices) => Ok(Self::lark(choice(choices)?)),
            GrammarSource::Lark(text) if text.trim().is_empty() => {
                Err(GrammarError::invalid("expected a grammar, found nothing"))
            }
            GrammarSource::Lark(text) => Ok(Self::lark(text.clone())),
            GrammarSource::MarkedLark { text, marks } => Ok(Self { marks: marks.clone(), ..Self::lark(text.clone()) }),
            GrammarSource::Gbnf(text) => Ok(Self::lark(gbnf::to_lark(text)?)),
        }
    }

    fn schema(schema: &Value, strict: bool, white_space: WhiteSpace) -> Result<Self, GrammarError> {
        let checked = schema::check(schema, strict)?;
        let source = TopLevelGrammar::from_json_schema(checked.with_options(strict, white_space));
        Ok(Self { source, unenforced: checked.unenforced, definitions: checked.definitions, marks: Vec::new() })
    }

    fn lark(text: String) -> Self {
        let source = TopLevelGrammar::from_lark(text);
        Self { source, unenforced: Vec::new(), definitions: Vec::new(), marks: Vec::new() }
    }
}

/// The Lark grammar of a choice. It is one terminal, so that a text that begins another can be chosen, too.
fn choice(choices: &[String]) -> Result<String, GrammarError> {
    if choices.is_empty() {
        return Err(GrammarError::invalid("expected at least one choice, found none"));
    }
    if choices.len() > CHOICES_MAX {
        return Err(GrammarError::TooLarge { unit: "choices", expected: CHOICES_MAX, found: choices.len() });
    }
    let mut lark = "start: CHOICE\nCHOICE: ".to_owned();
    for (place, text) in choices.iter().enumerate() {
        if text.is_empty() {
            return Err(GrammarError::invalid(format!("expected texts to choose from, found an empty one at {place}")));
        }
        lark.push_str(if place == 0 { "" } else { " | " });
        write_literal(text, &mut lark);
    }
    lark.push('\n');
    Ok(lark)
}

/// Writes a terminal that matches `text`, as a regular expression of escapes: Lark's own strings cannot hold all text.
pub(super) fn write_literal(text: &str, lark: &mut String) {
    if text.is_empty() {
        lark.push_str("\"\"");
        return;
    }
    lark.push('/');
    for character in text.chars() {
        let _ = write!(lark, "\\x{{{:X}}}", u32::from(character));
    }
    lark.push('/');
}
