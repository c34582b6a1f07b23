//! Parameters that this dialect does not have or cannot honour. They are refused unless their value has no effect.

use crate::http::error::ApiError;
use crate::http::params::Params;
use crate::http::unsupported::{self, Neutral, is_empty, is_one};

const UNSUPPORTED: &[(&str, Neutral)] = &[
    ("background", is_empty),
    ("conversation", is_empty),
    ("prompt", is_empty),
    ("context_management", is_empty),
    ("moderation", is_empty),
    ("stop", is_empty),
    ("n", is_one),
];

/// Parameters of chats that have another name here.
const MOVED: &[(&str, &str)] = &[
    ("messages", "input"),
    ("max_tokens", "max_output_tokens"),
    ("max_completion_tokens", "max_output_tokens"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
    ("verbosity", "text.verbosity"),
    ("functions", "tools"),
];

/// Refuses parameters that would otherwise be silently ignored.
///
/// # Errors
/// A 400 that names the first such parameter.
pub(super) fn refuse(params: &Params<'_>) -> Result<(), ApiError> {
    unsupported::refuse(params, UNSUPPORTED, "is not supported by this server yet")?;
    for (key, name) in MOVED {
        if params.get(key).is_some() {
            let message = format!("'{key}' is no parameter of /v1/responses: expected '{name}' in its place.");
            return Err(ApiError::unsupported(key, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_without_effect_and_unknown_keys_are_accepted() {
        let body = json!({
            "background": false, "conversation": null, "prompt": null, "context_management": [], "n": 1, "stop": [],
            "max_tool_calls": 3, "client_metadata": {"a": "b"}, "prompt_cache_options": {},
            "service_tier": "auto", "messages": null
        });
        refuse(&Params::new(body.as_object().unwrap())).unwrap();
    }

    #[test]
    fn values_that_would_change_the_answer_are_refused_by_name() {
        for (key, value) in [
            ("background", json!(true)),
            ("conversation", json!("conv_1")),
            ("conversation", json!({"id": "conv_1"})),
            ("prompt", json!({"id": "pmpt_1"})),
            ("context_management", json!([{"type": "compaction"}])),
            ("stop", json!("end")),
            ("n", json!(2)),
            ("messages", json!([])),
            ("max_tokens", json!(5)),
        ] {
            let body = json!({key: value});
            assert_eq!(refuse(&Params::new(body.as_object().unwrap())).unwrap_err().param(), Some(key));
        }
    }
}
