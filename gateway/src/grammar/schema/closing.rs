//! Objects that list their properties get no others, unless their schema says more about them: `additionalProperties`
//! that is absent allows anything, and small models then invent properties without end. What is generated is valid for
//! the schema all the same; servers of the same API close objects, too.

use serde_json::{Map, Value};

/// Keywords that put together what several schemas say of one object.
const COMBINING: &[&str] = &["allOf", "dependencies", "dependentSchemas", "if", "not", "unevaluatedProperties"];
/// Keywords that do so beside `properties`.
const COMBINING_BESIDE: &[&str] = &["$ref", "anyOf", "oneOf"];
/// Keywords that say which further properties there are.
const OF_FURTHER: &[&str] = &["additionalProperties", "minProperties", "patternProperties"];

/// True if objects of `root` can be closed each for itself, because none is described in several places. It looks at
/// all that `root` contains, values that are no schemas included, and so errs on the open side.
pub(super) fn is_possible(root: &Value) -> bool {
    match root {
        Value::Array(list) => list.iter().all(is_possible),
        Value::Object(object) => {
            let has = |words: &[&str]| words.iter().any(|word| object.contains_key(*word));
            let combines = has(COMBINING) || object.contains_key("properties") && has(COMBINING_BESIDE);
            !combines && object.values().all(is_possible)
        }
        _ => true,
    }
}

/// True if `schema` lists properties, all that it requires among them, and says nothing about further ones.
pub(super) fn lists_its_properties(schema: &Map<String, Value>) -> bool {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return false };
    let required = schema.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is_listed = |name: &Value| name.as_str().is_none_or(|name| properties.contains_key(name));
    required.iter().all(is_listed) && !OF_FURTHER.iter().any(|word| schema.contains_key(*word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_closed_if_it_lists_what_it_requires_and_says_no_more() {
        for (schema, closed) in [
            (json!({"properties": {}}), true),
            (json!({"properties": {"a": {}}, "required": ["a"]}), true),
            (json!({"properties": {"a": {}}, "required": ["b"]}), false),
            (json!({"properties": {"a": {}}, "additionalProperties": true}), false),
            (json!({"properties": {"a": {}}, "patternProperties": {"^b": {}}}), false),
            (json!({"properties": {"a": {}}, "minProperties": 2}), false),
            (json!({"type": "object"}), false),
        ] {
            assert_eq!(lists_its_properties(schema.as_object().unwrap()), closed, "{schema}");
        }
    }

    #[test]
    fn nothing_is_closed_where_schemas_are_put_together() {
        let object = json!({"properties": {"a": {}}});
        for (schema, possible) in [
            (json!({"items": {"anyOf": [object, {"$ref": "#/$defs/b"}]}, "$defs": {"b": object}}), true),
            (json!({"items": {"allOf": [object, {"required": ["b"]}]}}), false),
            (json!({"anyOf": [{"required": ["b"]}], "properties": {"a": {}}}), false),
            (json!({"$ref": "#/$defs/b", "properties": {"a": {}}}), false),
            (json!({"not": {"required": ["a"]}, "properties": {"a": {}}}), false),
        ] {
            assert_eq!(is_possible(&schema), possible, "{schema}");
        }
    }
}
