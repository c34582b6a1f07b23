//! Parameters that would change an answer and that a page does not have. Each API lists its own.

use serde_json::Value;

use super::error::ApiError;
use super::params::Params;

/// True if a value has no effect, so that it need not be refused.
pub(crate) type Neutral = fn(&Value) -> bool;

/// Refuses every parameter of `list` whose value has an effect. `reason` completes the sentence that its name begins.
///
/// # Errors
/// A 400 that names the first such parameter.
pub(crate) fn refuse(params: &Params<'_>, list: &[(&str, Neutral)], reason: &str) -> Result<(), ApiError> {
    match list.iter().find(|(key, neutral)| params.get(key).is_some_and(|value| !neutral(value))) {
        Some((key, _)) => Err(ApiError::unsupported(&params.path(key), format!("'{}' {reason}.", params.path(key)))),
        None => Ok(()),
    }
}

/// True for false, and for an array, an object or a string without content.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// True for the number 0.
pub(crate) fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

/// True for the number 1.
pub(crate) fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_value_with_an_effect_is_refused_by_its_path() {
        let list: &[(&str, Neutral)] = &[("lora", is_empty), ("mirostat", is_zero), ("tfs_z", is_one)];
        let refused = |options: Value| {
            let body = json!({"options": options});
            let params = Params::new(body.as_object().unwrap()).object("options").unwrap().unwrap();
            refuse(&params, list, "is not supported").err().map(|error| error.json()["error"].clone())
        };
        for options in [json!({}), json!({"lora": [], "mirostat": 0, "tfs_z": 1.0}), json!({"lora": null, "other": 5})]
        {
            assert_eq!(refused(options), None);
        }
        let error = refused(json!({"lora": "", "mirostat": 2, "tfs_z": 0.5})).unwrap();
        assert_eq!(error["param"], "options.mirostat");
        assert_eq!(error["message"], "'options.mirostat' is not supported.");
    }

    #[test]
    fn nothing_false_and_what_has_no_content_are_empty() {
        for value in [json!(null), json!(false), json!([]), json!({}), json!("")] {
            assert!(is_empty(&value), "{value}");
        }
        for value in [json!(true), json!(0), json!([null]), json!({"a": null}), json!(" ")] {
            assert!(!is_empty(&value), "{value}");
        }
    }
}
