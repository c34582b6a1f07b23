//! A grammar's source, as a request gives it.

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::GrammarError;
use super::limits::SOURCE_BYTES_MAX;

/// The form that an answer must have.
#[derive(Debug, Clone, PartialEq)]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// A JSON value that is valid for a schema.
    JsonSchema {
        /// The schema, of any draft from 4 to 2020-12.
        schema: Value,
        /// True if every keyword must be enforced. Otherwise those that cannot be enforced are left out, and
        /// [`super::Grammar::unenforced`] lists them.
        strict: bool,
        /// The white space of the answer.
        white_space: WhiteSpace,
    },
    /// A text that a regular expression matches as a whole, in the syntax of Rust's `regex` crate. `\d`, `\w` and `\s`
    /// are ASCII.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// llguidance's variant of Lark. The rule `start` is the answer. A `%json` value in it has llguidance's own white
    /// space, which is not bounded; [`super::lark_value`] writes one whose white space is.
    Lark(String),
    /// The same with control tokens, written `<[id]>`: the marks around a model's calls of tools. It is never text of a
    /// client.
    MarkedLark {
        /// The grammar.
        text: String,
        /// The control tokens that can be chosen, where the grammar names them. None of them ends an answer.
        marks: Vec<u32>,
    },
    /// llama.cpp's GBNF. The rule `root` is the answer.
    ///
    /// It is translated to Lark, which reads a text as a series of terminals, each as long as possible. So a text that
    /// only another division into terminals would allow is not allowed. A division matters only within rules that
    /// refer to themselves: all others become one terminal each, of which nothing is lost.
    Gbnf(String),
}

/// The white space between the tokens of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhiteSpace {
    /// The model chooses: nothing, a space, or a line break and a bounded indentation.
    Chosen,
    /// One space behind each comma and colon, and none elsewhere. So more of the text is forced.
    Fixed,
}

/// The hash of a source. Sources with the same key are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SourceKey([u8; 32]);

// === impl GrammarSource ===

impl GrammarSource {
    /// The source's key and its size in bytes.
    ///
    /// # Errors
    /// [`GrammarError::TooLarge`] when it has more than [`SOURCE_BYTES_MAX`].
    pub(super) fn key(&self) -> Result<(SourceKey, usize), GrammarError> {
        let text = self.text();
        if text.len() > SOURCE_BYTES_MAX {
            return Err(GrammarError::TooLarge { unit: "bytes", expected: SOURCE_BYTES_MAX, found: text.len() });
        }
        let digest = Sha256::new().chain_update([self.kind()]).chain_update(text.as_bytes()).finalize();
        Ok((SourceKey(digest.into()), text.len()))
    }

    fn kind(&self) -> u8 {
        match self {
            Self::JsonObject => 0,
            Self::JsonSchema { strict: false, white_space: WhiteSpace::Chosen, .. } => 1,
            Self::JsonSchema { strict: true, white_space: WhiteSpace::Chosen, .. } => 2,
            Self::Regex(_) => 3,
            Self::Choice(_) => 4,
            Self::Lark(_) => 5,
            Self::Gbnf(_) => 6,
            Self::MarkedLark { .. } => 7,
            Self::JsonSchema { strict: false, white_space: WhiteSpace::Fixed, .. } => 8,
            Self::JsonSchema { strict: true, white_space: WhiteSpace::Fixed, .. } => 9,
        }
    }

    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::JsonObject => Cow::Borrowed(""),
            Self::JsonSchema { schema, .. } => Cow::Owned(schema.to_string()),
            Self::Choice(choices) => Cow::Owned(Value::from(choices.as_slice()).to_string()),
            Self::MarkedLark { text, marks } => Cow::Owned(format!("{marks:?}\n{text}")),
            Self::Regex(text) | Self::Lark(text) | Self::Gbnf(text) => Cow::Borrowed(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sources_of_different_kinds_or_texts_have_different_keys() {
        let schema = |strict, schema| GrammarSource::JsonSchema { schema, strict, white_space: WhiteSpace::Chosen };
        let fixed = |strict| GrammarSource::JsonSchema { schema: json!({}), strict, white_space: WhiteSpace::Fixed };
        let sources = [
            GrammarSource::JsonObject,
            schema(true, json!({})),
            schema(false, json!({})),
            fixed(true),
            fixed(false),
            schema(true, json!({"properties": {"a": {}, "b": {}}})),
            schema(true, json!({"properties": {"b": {}, "a": {}}})),
            GrammarSource::Regex("a".to_owned()),
            GrammarSource::Lark("a".to_owned()),
            GrammarSource::MarkedLark { text: "a".to_owned(), marks: vec![1] },
            GrammarSource::MarkedLark { text: "a".to_owned(), marks: vec![2] },
            GrammarSource::Gbnf("a".to_owned()),
            GrammarSource::Choice(vec!["a".to_owned(), "b".to_owned()]),
            GrammarSource::Choice(vec!["a\",\"b".to_owned()]),
        ];
        let keys: std::collections::HashSet<_> = sources.iter().map(|source| source.key().unwrap().0).collect();
        assert_eq!(keys.len(), sources.len());
        assert_eq!(sources[5].key().unwrap().0, sources[5].clone().key().unwrap().0);
    }

    #[test]
    fn a_source_over_the_bound_is_refused() {
        let error = GrammarSource::Lark("x".repeat(SOURCE_BYTES_MAX + 1)).key().unwrap_err();
        assert_eq!(error.to_string(), "grammar too large: expected at most 262144 bytes, found 262145");
    }
}
