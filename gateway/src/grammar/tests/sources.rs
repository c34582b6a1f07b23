//! Grammars of every kind, and random schemas.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{choice, gbnf, lark, regex, schema};
use crate::grammar::GrammarSource;

/// GBNF for JSON, as in llama.cpp's examples.
pub(super) const JSON_GBNF: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"#;

/// Schemas with most of what a grammar enforces.
pub(super) fn schemas() -> Vec<Value> {
    vec![
        json!({}),
        json!(true),
        json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
               "required": ["name", "age"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"city": {"enum": ["Paris", "Rome", 3, null, {"a": [1]}]},
               "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 1, "maxItems": 3}},
               "required": ["tags"]}),
        json!({"type": "array", "prefixItems": [{"type": "boolean"}, {"const": "x"}], "items": {"type": "number"}}),
        json!({"anyOf": [{"type": "string", "pattern": "^[a-c]{2,4}$"},
               {"type": "integer", "minimum": -7, "maximum": 12}]}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "object", "properties": {"id": {"type": "string", "format": "uuid"},
               "at": {"type": "string", "format": "ipv4"}}, "required": ["id", "at"], "additionalProperties": false}),
        json!({"type": ["string", "null"], "minLength": 2, "maxLength": 9}),
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1.5}),
        json!({"type": "integer", "multipleOf": 7}),
        json!({"type": "object", "patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": false}),
        json!({"type": "object", "additionalProperties": {"type": "boolean"}}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
               {"properties": {"b": {"type": "null"}}, "required": ["b"]}]}),
        json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {
               "left": {"$ref": "#/$defs/tree"}, "value": {"type": "integer"}}, "required": ["value"],
               "additionalProperties": false}}}),
        json!({"oneOf": [
               {"type": "object", "properties": {"kind": {"const": "a"}, "n": {"type": "integer"}},
                "required": ["kind"], "additionalProperties": false},
               {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"],
                "additionalProperties": false}]}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
               "items": [{"type": "integer"}, {"type": "string"}], "additionalItems": {"type": "null"}}),
    ]
}

/// Sources of every kind.
pub(super) fn sources() -> Vec<GrammarSource> {
    let mut sources: Vec<GrammarSource> = schemas().into_iter().map(schema).collect();
    sources.extend([
        GrammarSource::JsonObject,
        regex(r"\d{4}-\d\d(-\d\d)?( foo| foobar)*"),
        choice(&["foo", "foobar", "fo", "日本", "names and more names"]),
        lark("start: \"a\" start \"b\" | \"c\"\n"),
        lark("start: (NAME \"=\" /[0-9]+/ \";\")+\nNAME: /[a-z]{1,8}/\n%ignore / {1,3}/\n"),
        gbnf(JSON_GBNF),
        gbnf("root ::= \"foo\" root | \"bar\"{2,3} \".\" [^a-z]?"),
    ]);
    sources
}

/// A schema of bounded depth, and the values that are valid for it.
pub(super) fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "string"})),
        (-50_i64..50, 0_i64..90)
            .prop_map(|(min, more)| json!({"type": "integer", "minimum": min, "maximum": min + more})),
        (0_u32..4, 0_u32..6)
            .prop_map(|(min, more)| json!({"type": "string", "minLength": min, "maxLength": min + more})),
        proptest::sample::subsequence(vec![json!("a"), json!("\"é\\"), json!(1), json!(null), json!([true])], 1..4)
            .prop_map(|values| json!({"enum": values})),
        "[a-c]{1,3}".prop_map(|text| json!({"type": "string", "pattern": format!("^({text}|\\d+)$")})),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(|_| json!({"type": "number", "minimum": -2.5})),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0_usize..2, 0_usize..3).prop_map(
                |(items, min, more)| json!({"type": "array", "items": items, "minItems": min, "maxItems": min + more})
            ),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(|schemas| json!({"anyOf": schemas})),
            (proptest::collection::vec((inner, any::<bool>()), 0..4), any::<bool>()).prop_map(|(properties, more)| {
                let names = ["name", "a b", "é\"", "age"];
                let required: Vec<&str> = names
                    .iter()
                    .zip(&properties)
                    .filter(|(_, (_, required))| *required)
                    .map(|(name, _)| *name)
                    .collect();
                let properties: serde_json::Map<String, Value> = names
                    .iter()
                    .zip(&properties)
                    .map(|(name, (schema, _))| ((*name).to_owned(), schema.clone()))
                    .collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": more})
            }),
        ]
    })
}
