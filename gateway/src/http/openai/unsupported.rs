//! Parameters that would change an answer and that this server does not support. They are refused unless their value
//! has no effect.

use serde_json::Value;

use super::params::Params;
use crate::http::error::ApiError;
use crate::http::unsupported::{self, Neutral, is_empty};

const UNSUPPORTED: &[(&str, Neutral)] = &[
    ("modalities", |value| value.as_array().is_some_and(|list| list.iter().all(|kind| is_one_of(kind, &["text"])))),
    ("audio", is_empty),
];

/// Parameters of completions, which chats do not have.
const OF_COMPLETIONS: &[(&str, Neutral)] = &[("suffix", is_empty)];

/// Parameters of chats, which completions do not have.
const OF_CHATS: &[(&str, Neutral)] = &[
    ("tools", is_empty),
    ("functions", is_empty),
    ("tool_choice", |value| is_one_of(value, &["none", "auto"])),
    ("function_call", |value| is_one_of(value, &["none", "auto"])),
    ("continue_final_message", is_false),
    ("chat_template", is_empty),
    ("chat_template_kwargs", is_empty),
    ("thinking_budget_tokens", |value| value.as_i64() == Some(-1)),
];

/// Parameters of vLLM's and llama-server's embeddings that would change a vector.
const OF_EMBEDDINGS: &[(&str, Neutral)] = &[
    ("messages", is_empty),
    ("add_special_tokens", |value| value.as_bool() == Some(true)),
    ("truncate_prompt_tokens", is_empty),
    ("normalize", |value| value.as_bool() == Some(true)),
    ("embd_normalize", |value| value.as_i64() == Some(2)),
];

/// Refuses parameters that would otherwise be silently ignored.
///
/// # Errors
/// A 400 that names the first such parameter.
pub(crate) fn refuse(params: &Params<'_>) -> Result<(), ApiError> {
    unsupported::refuse(params, UNSUPPORTED, "is not supported by this server yet")
}

/// Refuses parameters of completions in a chat.
///
/// # Errors
/// A 400 that names the first such parameter.
pub(crate) fn refuse_of_completions(params: &Params<'_>) -> Result<(), ApiError> {
    unsupported::refuse(params, OF_COMPLETIONS, "is not supported here: use /v1/completions")
}

/// Refuses parameters of chats in a completion.
///
/// # Errors
/// A 400 that names the first such parameter.
pub(crate) fn refuse_of_chats(params: &Params<'_>) -> Result<(), ApiError> {
    unsupported::refuse(params, OF_CHATS, "is not supported here: use /v1/chat/completions")
}

/// Refuses parameters that would change an embedding.
///
/// # Errors
/// A 400 that names the first such parameter.
pub(crate) fn refuse_of_embeddings(params: &Params<'_>) -> Result<(), ApiError> {
    unsupported::refuse(params, OF_EMBEDDINGS, "is not supported by this server yet")
}

fn is_false(value: &Value) -> bool {
    value.as_bool() == Some(false)
}

fn is_one_of(value: &Value, accepted: &[&str]) -> bool {
    value.as_str().is_some_and(|text| accepted.contains(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_without_effect_are_accepted() {
        let value = json!({"audio": null, "user": "someone", "some_new_key": [1, 2]});
        refuse(&Params::new(value.as_object().unwrap())).unwrap();
    }

    #[test]
    fn values_that_would_change_the_answer_are_refused_by_name() {
        for (key, value) in [("audio", json!({"voice": "a"})), ("modalities", json!(["audio"]))] {
            let body = json!({key: value});
            let error = refuse(&Params::new(body.as_object().unwrap())).unwrap_err();
            assert_eq!(error.json()["error"]["param"], key);
        }
    }

    #[test]
    fn parameters_of_completions_are_refused_in_chats() {
        let refused = |suffix| {
            let body = json!({"suffix": suffix});
            refuse_of_completions(&Params::new(body.as_object().unwrap())).err().map(|error| error.json())
        };
        assert_eq!(refused(""), None);
        assert_eq!(refused("end").unwrap()["error"]["param"], "suffix");
    }

    #[test]
    fn parameters_of_chats_are_refused_in_completions() {
        for (key, value) in [("tools", json!([{"type": "function"}])), ("tool_choice", json!("required"))] {
            let body = json!({key: value});
            let error = refuse_of_chats(&Params::new(body.as_object().unwrap())).unwrap_err();
            assert_eq!(error.json()["error"]["param"], key);
        }
        let neutral = json!({"tools": [], "tool_choice": "auto", "thinking_budget_tokens": -1});
        refuse_of_chats(&Params::new(neutral.as_object().unwrap())).unwrap();
    }
}
