//! Parameters that would change an answer and that this server does not support. They are refused unless their value
//! has no effect.
//!
//! Ignored are those that change nothing here: `metadata`, `service_tier`, `inference_geo`, `speed`, `diagnostics`,
//! `cache_control` in every place (the prefix cache keeps every prompt), and `context_management` (the server leaves
//! the conversation as the client sends it).

use super::params::Params;
use crate::http::error::ApiError;
use crate::http::unsupported::{self, Neutral, is_empty};

const UNSUPPORTED: &[(&str, Neutral)] = &[("container", is_empty), ("mcp_servers", is_empty), ("fallbacks", is_empty)];

/// Refuses parameters that would otherwise be silently ignored.
///
/// # Errors
/// A 400 that names the first such parameter.
pub(crate) fn refuse(params: &Params<'_>) -> Result<(), ApiError> {
    unsupported::refuse(params, UNSUPPORTED, "is not supported by this server")
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
            ("fallbacks", json!([{"model": "x"}]), "fallbacks"),
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
