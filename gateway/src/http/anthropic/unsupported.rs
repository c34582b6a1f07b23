//! Parameters that would change an answer and that this server does not support. They are refused unless their value
//! has no effect.
//!
//! Ignored are those that change nothing here: `metadata`, `service_tier`, `inference_geo`, `speed`, `diagnostics`,
//! `cache_control` in every place (the prefix cache keeps every prompt), and `context_management` (the server leaves
//! the conversation as the client sends it).

use serde_json::Value;

use super::params::Params;
use crate::http::error::ApiError;

const UNSUPPORTED: &[&str] = &["container", "mcp_servers", "fallbacks", "output_format"];

/// Refuses parameters that would otherwise be silently ignored.
///
/// # Errors
/// A 400 that names the first such parameter.
pub(crate) fn refuse(params: &Params<'_>) -> Result<(), ApiError> {
    let is_given = |params: &Params<'_>, key: &str| params.get(key).is_some_and(|value| !is_empty(value));
    let refused = |at: &str| Err(ApiError::unsupported(at, format!("'{at}' is not supported by this server.")));
    if let Some(key) = UNSUPPORTED.iter().find(|key| is_given(params, key)) {
        return refused(key);
    }
    match params.object("output_config")? {
        Some(config) if is_given(&config, "format") => refused(&config.path("format")),
        _ => Ok(()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_that_would_change_the_answer_are_refused_by_name() {
        for (key, value, param) in [
            ("container", json!("c1"), "container"),
            ("mcp_servers", json!([{"name": "x"}]), "mcp_servers"),
            ("output_config", json!({"format": {"type": "json_schema"}}), "output_config.format"),
        ] {
            let body = json!({key: value});
            let error = refuse(&Params::new(body.as_object().unwrap())).unwrap_err();
            assert_eq!(error.json()["error"]["param"], param);
        }
    }

    #[test]
    fn others_are_ignored() {
        let body = json!({
            "container": null, "mcp_servers": [], "metadata": {"user_id": "x"}, "service_tier": "auto",
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
        });
        refuse(&Params::new(body.as_object().unwrap())).unwrap();
    }
}
