//! Reads typed parameters of a JSON object. `null` counts as absent. An error names the parameter with its path in the
//! body, the expected value and the value found.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::{ApiError, cut};
use super::limits::JSON_MAX;
use crate::json_size::JsonSize;

/// The parameters of one JSON object of a request.
#[derive(Debug, Clone)]
pub(crate) struct Params<'a> {
    map: &'a Map<String, Value>,
    /// The object's path in the body, such as `messages[2].content[0]`. Empty for the body itself.
    at: String,
}

/// Parses a body that must be one JSON object.
///
/// # Errors
/// A 400 with the position at which the JSON is broken, or with the type found instead of an object. A 413 if it has
/// more values or lists than it may have.
pub(crate) fn parse_object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    JsonSize::of(body).within(JSON_MAX).map_err(|error| ApiError::too_much_json(&error))?;
    let parsed: Value = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request("invalid_json", format!("We could not parse the JSON body of your request: {error}."))
    })?;
    match parsed {
        Value::Object(map) => Ok(map),
        other => {
            let message = format!("The body must be a JSON object: found {}.", describe(&other));
            Err(ApiError::bad_request("invalid_type", message))
        }
    }
}

// === impl Params ===

impl<'a> Params<'a> {
    /// The parameters in `map`, a request's body.
    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, at: String::new() }
    }

    /// The parameters in `value`, the object at the path `at` of the body.
    ///
    /// # Errors
    /// A 400 if `value` is no object. `expected` describes it.
    pub(crate) fn at(at: &str, expected: &str, value: &'a Value) -> Result<Self, ApiError> {
        let map = value.as_object().ok_or_else(|| wrong_type(at, expected, value))?;
        Ok(Self { map, at: at.to_owned() })
    }

    /// The path of `key` in the body.
    pub(crate) fn path(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// The value of `key`, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// A 400 if it is absent or null.
    pub(crate) fn required(&self, key: &str, expected: &str) -> Result<&'a Value, ApiError> {
        self.get(key).ok_or_else(|| missing(&self.path(key), expected))
    }

    /// A string that must be there.
    pub(crate) fn required_text(&self, key: &str) -> Result<&'a str, ApiError> {
        self.required(key, "a string")?;
        Ok(self.text(key)?.unwrap_or_default())
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ApiError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A boolean. An absent one is false.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, ApiError> {
        Ok(self.typed(key, "a boolean", Value::as_bool)?.unwrap_or(false))
    }

    /// An array.
    pub(crate) fn list(&self, key: &str) -> Result<Option<&'a [Value]>, ApiError> {
        self.typed(key, "an array", |value| value.as_array().map(Vec::as_slice))
    }

    /// An object.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Params<'a>>, ApiError> {
        self.get(key).map(|found| Self::at(&self.path(key), "an object", found)).transpose()
    }

    /// A number within `range`.
    pub(crate) fn number(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ApiError> {
        let Some(found) = self.get(key) else { return Ok(None) };
        let expected = format!("a number from {} to {}", range.start(), range.end());
        let number = found.as_f64().ok_or_else(|| wrong_type(&self.path(key), &expected, found))?;
        if range.contains(&number) { Ok(Some(number)) } else { Err(out_of_range(&self.path(key), &expected, found)) }
    }

    /// A whole number within `range`. `2.0` counts as one.
    pub(crate) fn whole(&self, key: &str, range: RangeInclusive<i128>) -> Result<Option<i128>, ApiError> {
        let Some(found) = self.get(key) else { return Ok(None) };
        whole(&self.path(key), found, range).map(Some)
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(found) = self.get(key) else { return Ok(None) };
        read(found).map(Some).ok_or_else(|| wrong_type(&self.path(key), expected, found))
    }
}

/// `found` as a whole number within `range`. `param` is its name in an error.
pub(crate) fn whole(param: &str, found: &Value, range: RangeInclusive<i128>) -> Result<i128, ApiError> {
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    let number = found.as_f64().ok_or_else(|| wrong_type(param, &expected, found))?;
    let exact = found.as_i64().map(i128::from).or_else(|| found.as_u64().map(i128::from));
    let Some(whole) = exact.or_else(|| (number.fract() == 0.0).then_some(number as i128)) else {
        return Err(wrong_type(param, &expected, found));
    };
    if range.contains(&whole) { Ok(whole) } else { Err(out_of_range(param, &expected, found)) }
}

/// A 400: the value has the wrong type.
pub(crate) fn wrong_type(param: &str, expected: &str, found: &Value) -> ApiError {
    let message = format!("Invalid type for '{param}': expected {expected}, found {}.", describe(found));
    ApiError::bad_request("invalid_type", message).about(param)
}

/// A 400: the value has the right type, but cannot be used.
pub(crate) fn out_of_range(param: &str, expected: &str, found: &Value) -> ApiError {
    let message = format!("Invalid value for '{param}': expected {expected}, found {}.", describe(found));
    ApiError::bad_request("invalid_value", message).about(param)
}

/// A 400: the parameter is absent.
pub(crate) fn missing(param: &str, expected: &str) -> ApiError {
    let message = format!("Missing required parameter '{param}': expected {expected}.");
    ApiError::bad_request("missing_required_parameter", message).about(param)
}

/// A value's type, with the value itself (cut if long) if it is a boolean, a number or a string.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => format!("the boolean {flag}"),
        Value::Number(number) => format!("the number {}", cut(&number.to_string())),
        Value::String(text) => format!("the string {:?}", cut(text)),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(map) => format!("an object with {} keys", map.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn params(value: &Value) -> Params<'_> {
        Params::new(value.as_object().unwrap())
    }

    #[test]
    fn null_counts_as_absent() {
        let value = json!({"stream": null, "n": null, "stop": null});
        assert_eq!(params(&value).flag("stream"), Ok(false));
        assert_eq!(params(&value).whole("n", 1..=4), Ok(None));
        assert_eq!(params(&value).get("stop"), None);
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_float_but_not_with_a_fraction() {
        let value = json!({"a": 2.0, "b": 2.5, "c": 1e300, "d": -3, "e": "4"});
        assert_eq!(params(&value).whole("a", 0..=4), Ok(Some(2)));
        for key in ["b", "c", "d", "e"] {
            assert!(params(&value).whole(key, 0..=4).is_err(), "{key} was accepted");
        }
    }

    #[test]
    fn a_refusal_names_the_parameter_the_expected_value_and_the_found_one() {
        let value = json!({"temperature": "hot"});
        let error = params(&value).number("temperature", 0.0..=2.0).unwrap_err();
        let body = error.json();
        assert_eq!(body["error"]["param"], "temperature");
        assert_eq!(
            body["error"]["message"],
            "Invalid type for 'temperature': expected a number from 0 to 2, found the string \"hot\"."
        );
    }

    #[test]
    fn a_parameter_of_an_inner_object_is_named_with_its_path() {
        let value = json!({"thinking": {"budget": "much"}, "tool": 5});
        let thinking = params(&value).object("thinking").unwrap().unwrap();
        let error = thinking.whole("budget", 1..=9).unwrap_err();
        assert_eq!(error.json()["error"]["param"], "thinking.budget");
        let error = thinking.required_text("type").unwrap_err();
        assert_eq!(error.json()["error"]["code"], "missing_required_parameter");
        assert_eq!(error.json()["error"]["param"], "thinking.type");
        assert_eq!(params(&value).object("tool").unwrap_err().json()["error"]["param"], "tool");
        let error = Params::at("tools[1]", "a tool", &value["tool"]).unwrap_err();
        assert_eq!(error.json()["error"]["param"], "tools[1]");
    }

    #[test]
    fn invalid_json_is_refused_with_its_position() {
        let error = parse_object(b"{\"a\": 1,\n \"b\": }").unwrap_err();
        assert!(error.json()["error"]["message"].as_str().unwrap().contains("line 2 column 7"), "{error:?}");
        assert!(parse_object(b"[1]").is_err());
        assert!(parse_object(b"{\"a\": 1e999}").is_err());
        assert!(parse_object(b"{\"a\": \"\xff\"}").is_err());
    }
}
