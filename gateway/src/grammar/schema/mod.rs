//! JSON schemas: names what a grammar cannot enforce, bounds their size, and collects the schemas that are referred to.
//!
//! llguidance compiles what is left. It ignores annotations and words that are no keywords, as JSON Schema asks, and
//! so does this module.

mod closing;
mod keyword;
mod walk;

use serde_json::{Map, Value, json};

use super::limits::INDENT_SPACES_MAX;
use super::{GrammarError, WhiteSpace};

pub(super) use keyword::SUPPORTED_KEYWORDS;

/// A schema that llguidance can compile.
pub(super) struct CheckedSchema {
    schema: Map<String, Value>,
    /// The parts that were left out, each with its place.
    pub(super) unenforced: Vec<String>,
    /// The places of the definitions, by number: `#/$defs/d0` in the schema is the first.
    pub(super) definitions: Vec<String>,
}

/// A `%json` value for a Lark grammar: JSON that is valid for `schema`, with bounded white space. For grammars that put
/// a schema into other text, such as the call of a tool.
///
/// # Errors
/// As for compiling [`super::GrammarSource::JsonSchema`], as far as it can be seen without compiling.
pub fn lark_value(schema: &Value, strict: bool, white_space: WhiteSpace) -> Result<String, GrammarError> {
    Ok(format!("%json {}", check(schema, strict)?.with_options(strict, white_space)))
}

/// Checks `schema`. With `strict`, what cannot be enforced is an error. Otherwise it is left out and listed.
///
/// # Errors
/// [`GrammarError::Unsupported`] and [`GrammarError::Invalid`] with the place, [`GrammarError::TooLarge`].
pub(super) fn check(schema: &Value, strict: bool) -> Result<CheckedSchema, GrammarError> {
    walk::Walk::new(schema, strict).run()
}

// === impl CheckedSchema ===

impl CheckedSchema {
    /// The schema, with llguidance's options: bounded white space, and as lenient as `strict` allows.
    pub(super) fn with_options(&self, strict: bool, white_space: WhiteSpace) -> Value {
        let mut schema = self.schema.clone();
        let mut options = match white_space {
            // Between two tokens of JSON, once: a space, or a line break and its indentation.
            WhiteSpace::Chosen => json!({
                "whitespace_flexible": true,
                "whitespace_pattern": format!(r"\x20|\x0A\x20{{0,{INDENT_SPACES_MAX}}}"),
            }),
            WhiteSpace::Fixed => json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "}),
        };
        options["coerce_one_of"] = (!strict).into();
        options["lenient"] = (!strict).into();
        schema.insert("x-guidance".to_owned(), options);
        Value::Object(schema)
    }
}
