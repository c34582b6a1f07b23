//! One walk through a schema and all schemas that it refers to.

use std::collections::HashMap;
use std::mem;

use serde_json::{Map, Value};

use super::keyword::{FORMATS, Keyword, SUPPORTED_KEYWORDS, TYPES, asks_for_nothing};
use super::{CheckedSchema, closing};
use crate::grammar::limits::{PATTERN_PROPERTIES_MAX, SCHEMAS_MAX};
use crate::grammar::{GrammarError, Position, regex};

/// The walk. Each schema is visited once, in the order in which llguidance meets it first.
pub(super) struct Walk<'s> {
    root: &'s Value,
    strict: bool,
    /// True if objects that list their properties get no others.
    closes: bool,
    /// The place of the schema at hand, as a URI fragment.
    place: String,
    schemas: usize,
    patterns: usize,
    unenforced: Vec<String>,
    /// The numbers of definitions, by JSON pointer.
    numbers: HashMap<String, usize>,
    /// The places of definitions, and what remains of them.
    definitions: Vec<(String, Value)>,
}

// === impl Walk ===

impl<'s> Walk<'s> {
    pub(super) fn new(root: &'s Value, strict: bool) -> Self {
        Self {
            root,
            strict,
            closes: closing::is_possible(root),
            place: "#".to_owned(),
            schemas: 0,
            patterns: 0,
            unenforced: Vec::new(),
            numbers: HashMap::new(),
            definitions: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<CheckedSchema, GrammarError> {
        let mut schema = match self.schema(self.root)? {
            Value::Object(schema) => schema,
            Value::Bool(false) => {
                return Err(GrammarError::Unsatisfiable { reason: "the schema is false".to_owned() });
            }
            // A schema that allows everything.
            _ => Map::new(),
        };
        if let Some(draft) = self.root.get("$schema") {
            schema.insert("$schema".to_owned(), draft.clone());
        }
        let (places, kept): (Vec<_>, Vec<_>) = self.definitions.into_iter().unzip();
        if !kept.is_empty() {
            let named = kept.into_iter().enumerate().map(|(number, schema)| (format!("d{number}"), schema));
            schema.insert("$defs".to_owned(), named.collect());
        }
        Ok(CheckedSchema { schema, unenforced: self.unenforced, definitions: places })
    }

    /// The part of `schema` that remains.
    fn schema(&mut self, schema: &'s Value) -> Result<Value, GrammarError> {
        self.schemas += 1;
        if self.schemas > SCHEMAS_MAX {
            return Err(GrammarError::TooLarge { unit: "schemas", expected: SCHEMAS_MAX, found: self.schemas });
        }
        let object = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(object) => object,
            other => return Err(self.wrong("a schema (an object, true or false)", other)),
        };
        let mut kept = Map::new();
        for (word, value) in object {
            // In drafts with `prefixItems`, `additionalItems` is no keyword, and in others it belongs to a list.
            if word == "additionalItems" && !object.get("items").is_some_and(Value::is_array) {
                continue;
            }
            let checked = self.at(word, |walk| walk.keyword(word, value))?;
            if let Some(checked) = checked {
                kept.insert(word.clone(), checked);
            }
        }
        if self.closes && closing::lists_its_properties(object) {
            kept.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        Ok(Value::Object(kept))
    }

    /// The part of the value of keyword `word` that remains, if any does.
    fn keyword(&mut self, word: &str, value: &'s Value) -> Result<Option<Value>, GrammarError> {
        match Keyword::new(word) {
            Keyword::Schema => self.schema(value).map(Some),
            Keyword::SchemaOrList if value.is_array() => self.list(value).map(Some),
            Keyword::SchemaOrList => self.schema(value).map(Some),
            Keyword::List => self.list(value).map(Some),
            Keyword::Properties => self.properties(value).map(Some),
            Keyword::PatternProperties => self.pattern_properties(value).map(Some),
            Keyword::Reference => self.reference(value).map(Some),
            Keyword::Type => self.types(value).map(Some),
            Keyword::Pattern => {
                let pattern = value.as_str().ok_or_else(|| self.wrong("a regular expression", value))?;
                self.pattern(pattern)?;
                Ok(Some(value.clone()))
            }
            Keyword::Format => {
                let format = value.as_str().ok_or_else(|| self.wrong("the name of a format", value))?;
                if FORMATS.contains(&format) {
                    return Ok(Some(value.clone()));
                }
                self.leave_out(&format!("format {format:?}"), &format!("supported are {}", FORMATS.join(", ")))
            }
            Keyword::Plain => Ok(Some(value.clone())),
            Keyword::Unsupported if asks_for_nothing(word, value) => Ok(None),
            Keyword::Unsupported => self.leave_out(word, &format!("supported are {}", SUPPORTED_KEYWORDS.join(", "))),
            Keyword::Annotation => Ok(None),
        }
    }

    fn list(&mut self, value: &'s Value) -> Result<Value, GrammarError> {
        let list = value.as_array().ok_or_else(|| self.wrong("a list of schemas", value))?;
        let mut kept = Vec::with_capacity(list.len());
        for (place, schema) in list.iter().enumerate() {
            kept.push(self.at(&place.to_string(), |walk| walk.schema(schema))?);
        }
        Ok(Value::Array(kept))
    }

    fn properties(&mut self, value: &'s Value) -> Result<Value, GrammarError> {
        let properties = value.as_object().ok_or_else(|| self.wrong("an object of schemas", value))?;
        let mut kept = Map::new();
        for (name, schema) in properties {
            kept.insert(name.clone(), self.at(name, |walk| walk.schema(schema))?);
        }
        Ok(Value::Object(kept))
    }

    fn pattern_properties(&mut self, value: &'s Value) -> Result<Value, GrammarError> {
        for pattern in value.as_object().into_iter().flat_map(Map::keys) {
            self.at(pattern, |walk| walk.pattern(pattern))?;
            self.patterns += 1;
        }
        if self.patterns > PATTERN_PROPERTIES_MAX {
            let (unit, expected) = ("patterns of properties", PATTERN_PROPERTIES_MAX);
            return Err(GrammarError::TooLarge { unit, expected, found: self.patterns });
        }
        self.properties(value)
    }

    /// Checks the schema that `value` refers to, and refers to its definition instead.
    fn reference(&mut self, value: &Value) -> Result<Value, GrammarError> {
        let reference = value.as_str().ok_or_else(|| self.wrong("a reference", value))?;
        if reference == "#" {
            return Ok(value.clone());
        }
        let pointer = reference.strip_prefix('#').filter(|pointer| pointer.starts_with('/'));
        let Some(pointer) = pointer.and_then(percent_decoded) else {
            return Err(GrammarError::Unsupported {
                keyword: "$ref".to_owned(),
                hint: format!("expected a reference into this schema, such as #/$defs/name, found {reference:?}"),
                position: self.position(),
            });
        };
        if let Some(number) = self.numbers.get(&pointer) {
            return Ok(definition(*number));
        }
        let Some(schema) = self.root.pointer(&pointer) else {
            return Err(self.invalid(format!("expected a schema at {reference}, found nothing there")));
        };
        let number = self.definitions.len();
        self.definitions.push((reference.to_owned(), Value::Bool(true)));
        self.numbers.insert(pointer, number);
        let place = mem::replace(&mut self.place, reference.to_owned());
        let kept = self.schema(schema)?;
        self.place = place;
        self.definitions[number].1 = kept;
        Ok(definition(number))
    }

    fn types(&mut self, value: &Value) -> Result<Value, GrammarError> {
        let names = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let unknown = |name: &&Value| !name.as_str().is_some_and(|name| TYPES.contains(&name));
        match names.iter().find(unknown) {
            Some(unknown) => Err(self.wrong(&format!("one of {}", TYPES.join(", ")), unknown)),
            None => Ok(value.clone()),
        }
    }

    fn pattern(&self, pattern: &str) -> Result<(), GrammarError> {
        regex::check(pattern).map_err(|error| {
            self.invalid(format!("the pattern has a mistake in column {}: {}", error.column, error.reason))
        })
    }

    /// Leaves something out, if that is allowed.
    fn leave_out(&mut self, keyword: &str, hint: &str) -> Result<Option<Value>, GrammarError> {
        if self.strict {
            let (keyword, hint) = (keyword.to_owned(), hint.to_owned());
            return Err(GrammarError::Unsupported { keyword, hint, position: self.position() });
        }
        self.unenforced.push(format!("{keyword} at {}", self.place));
        Ok(None)
    }

    /// Goes to `step` below this place, and back.
    fn at<T>(&mut self, step: &str, go: impl FnOnce(&mut Self) -> Result<T, GrammarError>) -> Result<T, GrammarError> {
        let length = self.place.len();
        self.place.push('/');
        self.place.push_str(&step.replace('~', "~0").replace('/', "~1"));
        let result = go(self)?;
        self.place.truncate(length);
        Ok(result)
    }

    fn position(&self) -> Option<Position> {
        Some(Position::Pointer(self.place.clone()))
    }

    fn invalid(&self, reason: String) -> GrammarError {
        GrammarError::Invalid { reason, position: self.position() }
    }

    fn wrong(&self, expected: &str, found: &Value) -> GrammarError {
        /// Characters of a value that the message repeats.
        const FOUND_CHARS_MAX: usize = 60;
        let found: String = found.to_string().chars().take(FOUND_CHARS_MAX).collect();
        self.invalid(format!("expected {expected}, found {found}"))
    }
}

fn definition(number: usize) -> Value {
    Value::from(format!("#/$defs/d{number}"))
}

/// `text` with each `%XX` replaced by its byte. `None` if that is not UTF-8 or an escape is malformed.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(schema: &Value) -> Value {
        Value::Object(Walk::new(schema, true).run().unwrap().schema)
    }

    fn refusal(schema: &Value) -> String {
        Walk::new(schema, true).run().err().unwrap().to_string()
    }

    #[test]
    fn an_unsupported_keyword_is_named_with_its_place() {
        let schema = json!({"properties": {"a/b": {"anyOf": [{}, {"not": {"type": "null"}}]}}});
        let error = refusal(&schema);
        assert!(
            error.starts_with("unsupported: not at #/properties/a~1b/anyOf/1/not: supported are $ref, "),
            "{error}"
        );
        let error = refusal(&json!({"items": {"format": "phone"}}));
        assert!(error.starts_with("unsupported: format \"phone\" at #/items/format: supported are date, "), "{error}");
    }

    #[test]
    fn what_a_lenient_walk_leaves_out_is_listed() {
        let schema = json!({"type": "array", "items": {"format": "phone"}, "uniqueItems": true});
        let checked = Walk::new(&schema, false).run().unwrap();
        assert_eq!(Value::Object(checked.schema), json!({"type": "array", "items": {}}));
        assert_eq!(checked.unenforced, ["format \"phone\" at #/items/format", "uniqueItems at #/uniqueItems"]);
    }

    #[test]
    fn words_that_ask_for_nothing_are_left_out_and_properties_are_no_keywords() {
        let schema = json!({
            "title": "x", "x-guidance": {"whitespace_pattern": ".*"}, "uniqueItems": false, "unknown": 1,
            "properties": {"not": true, "$ref": {"type": "null"}}, "required": ["not"], "additionalItems": false,
        });
        let expected = json!({"properties": {"not": true, "$ref": {"type": "null"}}, "required": ["not"]});
        assert_eq!(kept(&schema), expected);
    }

    #[test]
    fn objects_that_list_their_properties_get_no_others_unless_schemas_are_combined() {
        let schema = json!({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"properties": {}}}});
        let expected = json!({
            "properties": {"a": {"$ref": "#/$defs/d0"}}, "additionalProperties": false,
            "$defs": {"d0": {"properties": {}, "additionalProperties": false}},
        });
        assert_eq!(kept(&schema), expected);
        let combined = json!({"allOf": [{"properties": {"a": true}}, {"properties": {"b": true}}]});
        assert_eq!(kept(&combined), combined);
    }

    #[test]
    fn references_are_followed_once_whatever_their_escapes() {
        let schema = json!({
            "anyOf": [{"$ref": "#/definitions/Record%3Ca~1b%3E"}, {"$ref": "#/definitions/list"}, {"$ref": "#"}],
            "definitions": {
                "Record<a/b>": {"type": "object", "additionalProperties": {"$ref": "#/definitions/list"}},
                "list": {"items": {"$ref": "#/definitions/Record%3Ca~1b%3E"}},
                "unused": {"not": {}},
            },
        });
        let expected = json!({
            "anyOf": [{"$ref": "#/$defs/d0"}, {"$ref": "#/$defs/d1"}, {"$ref": "#"}],
            "$defs": {
                "d0": {"type": "object", "additionalProperties": {"$ref": "#/$defs/d1"}},
                "d1": {"items": {"$ref": "#/$defs/d0"}},
            },
        });
        assert_eq!(kept(&schema), expected);
    }

    #[test]
    fn references_elsewhere_or_to_nothing_are_refused() {
        for reference in ["https://example.com/a.json", "#name", "other.json#/a", "#/%zz", "#/%ff"] {
            let error = refusal(&json!({"items": {"$ref": reference}}));
            assert!(error.starts_with("unsupported: $ref at #/items/$ref: expected a reference into this"), "{error}");
        }
        let error = refusal(&json!({"$ref": "#/$defs/absent"}));
        assert_eq!(error, "invalid grammar at #/$ref: expected a schema at #/$defs/absent, found nothing there");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let error = refusal(&json!({"properties": {"a": {"type": "strnig"}}}));
        let expected = "invalid grammar at #/properties/a/type: expected one of array, boolean, integer, null, number, \
                        object, string, found \"strnig\"";
        assert_eq!(error, expected);
        let error = refusal(&json!({"pattern": "a(b"}));
        assert_eq!(error, "invalid grammar at #/pattern: the pattern has a mistake in column 2: unclosed group");
        assert!(refusal(&json!({"properties": []})).contains("expected an object of schemas, found []"));
        assert!(refusal(&json!({"anyOf": {}})).contains("expected a list of schemas, found {}"));
        assert!(refusal(&json!(3)).contains("at #: expected a schema (an object, true or false), found 3"));
        assert!(refusal(&json!(false)).contains("allows no text"));
    }

    #[test]
    fn the_number_of_schemas_and_patterns_is_bounded() {
        let all: Vec<Value> = vec![json!({}); SCHEMAS_MAX];
        assert!(refusal(&json!({"anyOf": all})).contains("expected at most 10000 schemas, found 10001"));
        let patterns: Map<String, Value> =
            (0..=PATTERN_PROPERTIES_MAX).map(|n| (format!("^{n}$"), json!({}))).collect();
        let error = refusal(&json!({"patternProperties": patterns}));
        assert!(error.contains("expected at most 32 patterns of properties, found 33"), "{error}");
    }
}
