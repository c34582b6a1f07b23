//! The keywords of JSON Schema, by what a grammar can do with them.

use serde_json::Value;

/// The keywords that are enforced.
pub(in crate::grammar) const SUPPORTED_KEYWORDS: &[&str] = &[
    "$ref",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "required",
    "type",
];

/// The values of `format` that are enforced.
pub(super) const FORMATS: &[&str] =
    &["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"];

/// The values of `type`.
pub(super) const TYPES: &[&str] = &["array", "boolean", "integer", "null", "number", "object", "string"];

/// Keywords that ask for something that a grammar cannot enforce.
const UNSUPPORTED_KEYWORDS: &[&str] = &[
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "if",
    "maxContains",
    "minContains",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];

/// The kind of value under a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    /// A schema.
    Schema,
    /// A schema, or a list of them.
    SchemaOrList,
    /// A list of schemas.
    List,
    /// An object of schemas, by property.
    Properties,
    /// An object of schemas, by a pattern for properties.
    PatternProperties,
    /// A reference to a schema.
    Reference,
    /// The names of types.
    Type,
    /// A regular expression.
    Pattern,
    /// The name of a format.
    Format,
    /// Values that hold no schema.
    Plain,
    /// Something that a grammar cannot enforce.
    Unsupported,
    /// Nothing that a value must satisfy, or a word that JSON Schema does not know.
    Annotation,
}

// === impl Keyword ===

impl Keyword {
    /// The kind of `word`.
    pub(super) fn new(word: &str) -> Self {
        match word {
            "additionalItems" | "additionalProperties" => Self::Schema,
            "items" => Self::SchemaOrList,
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => Self::List,
            "properties" => Self::Properties,
            "patternProperties" => Self::PatternProperties,
            "$ref" => Self::Reference,
            "type" => Self::Type,
            "pattern" => Self::Pattern,
            "format" => Self::Format,
            word if SUPPORTED_KEYWORDS.contains(&word) => Self::Plain,
            word if UNSUPPORTED_KEYWORDS.contains(&word) => Self::Unsupported,
            _ => Self::Annotation,
        }
    }
}

/// True if an unsupported keyword has a value that every value satisfies.
pub(super) fn asks_for_nothing(keyword: &str, value: &Value) -> bool {
    let anything = || value == &Value::Bool(true) || value.as_object().is_some_and(serde_json::Map::is_empty);
    match keyword {
        "not" | "uniqueItems" => value == &Value::Bool(false),
        "else" | "propertyNames" | "then" | "unevaluatedItems" | "unevaluatedProperties" => anything(),
        "dependencies" | "dependentRequired" | "dependentSchemas" => {
            value.as_object().is_some_and(serde_json::Map::is_empty)
        }
        _ => false,
    }
}
