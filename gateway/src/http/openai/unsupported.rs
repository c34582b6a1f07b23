//! Parameters that would change an answer and that this server does not support. They are refused unless their value
//! has no effect.

use serde_json::Value;

use super::params::Params;
use crate::http::error::ApiError;

/// True if a value has no effect.
type Neutral = fn(&Value) -> bool;

const UNSUPPORTED: &[(&str, Neutral)] = &[
    ("tools", is_empty),
    ("functions", is_empty),
    ("tool_choice", |value| is_one_of(value, &["none", "auto"])),
    ("function_call", |value| is_one_of(value, &["none", "auto"])),
    ("response_format", |value| is_one_of(&value["type"], &["text"])),
    ("modalities", |value| value.as_array().is_some_and(|list| list.iter().all(|kind| is_one_of(kind, &["text"])))),
    ("audio", is_empty),
    ("logit_bias", is_empty),
    ("presence_penalty", |value| is_number(value, 0.0)),
    ("frequency_penalty", |value| is_number(value, 0.0)),
    ("repetition_penalty", |value| is_number(value, 1.0)),
    ("repeat_penalty", |value| is_number(value, 1.0)),
    ("min_tokens", |value| is_number(value, 0.0)),
    ("suffix", is_empty),
    ("echo", is_false),
    ("include_stop_str_in_output", is_false),
    ("continue_final_message", is_false),
    ("chat_template_kwargs", is_empty),
    ("chat_template", is_empty),
    ("grammar", is_empty),
    ("json_schema", is_empty),
    ("guided_json", is_empty),
    ("guided_regex", is_empty),
    ("guided_choice", is_empty),
    ("guided_grammar", is_empty),
    ("structured_outputs", is_empty),
];

/// Refuses parameters that would otherwise be silently ignored.
///
/// # Errors
/// A 400 that names the first such parameter.
pub(crate) fn refuse(params: &Params<'_>) -> Result<(), ApiError> {
    for (key, neutral) in UNSUPPORTED {
        if params.get(key).is_some_and(|value| !neutral(value)) {
            return Err(ApiError::unsupported(key, format!("'{key}' is not supported by this server yet.")));
        }
    }
    refuse_best_of(params)
}

/// Refuses a `best_of` that differs from `n`. If both are equal, there is nothing to choose.
fn refuse_best_of(params: &Params<'_>) -> Result<(), ApiError> {
    let choices = params.get("n").and_then(Value::as_f64).unwrap_or(1.0);
    match params.get("best_of") {
        Some(value) if !is_number(value, choices) => {
            let message = "'best_of' other than 'n' is not supported by this server yet.";
            Err(ApiError::unsupported("best_of", message))
        }
        _ => Ok(()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn is_false(value: &Value) -> bool {
    value.as_bool() == Some(false)
}

fn is_one_of(value: &Value, accepted: &[&str]) -> bool {
    value.as_str().is_some_and(|text| accepted.contains(&text))
}

fn is_number(value: &Value, neutral: f64) -> bool {
    value.as_f64() == Some(neutral)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_without_effect_are_accepted() {
        let value = json!({
            "tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "logit_bias": {},
            "presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1, "suffix": "", "echo": false,
            "best_of": 2, "n": 2, "user": "someone", "some_new_key": [1, 2]
        });
        refuse(&Params::new(value.as_object().unwrap())).unwrap();
    }

    #[test]
    fn values_that_would_change_the_answer_are_refused_by_name() {
        for (key, value) in [
            ("tools", json!([{"type": "function"}])),
            ("tool_choice", json!("required")),
            ("response_format", json!({"type": "json_object"})),
            ("response_format", json!("json")),
            ("logit_bias", json!({"5": 100})),
            ("presence_penalty", json!(0.5)),
            ("repeat_penalty", json!(1.1)),
            ("echo", json!(true)),
            ("best_of", json!(3)),
            ("suffix", json!("end")),
        ] {
            let body = json!({key: value});
            let error = refuse(&Params::new(body.as_object().unwrap())).unwrap_err();
            assert_eq!(error.json()["error"]["param"], key);
        }
    }
}
