//! The response object: the body of an answer, and a part of some events.

use serde::Serialize;

use super::echo::Echo;
use super::item::Item;
use super::usage::UsageBody;
use crate::http::error::ApiError;
use crate::http::generation::timings::TimingsBody;

/// A response, whole or in progress.
#[derive(Debug, Serialize)]
pub(super) struct ResponseBody {
    pub(super) id: String,
    pub(super) object: &'static str,
    /// Seconds since 1970.
    pub(super) created_at: u64,
    /// Seconds since 1970, if it is complete.
    pub(super) completed_at: Option<u64>,
    pub(super) status: ResponseStatus,
    pub(super) error: Option<ErrorBody>,
    pub(super) incomplete_details: Option<IncompleteDetails>,
    pub(super) model: String,
    pub(super) output: Vec<Item>,
    pub(super) usage: Option<UsageBody>,
    #[serde(flatten)]
    pub(super) echo: Echo,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timings: Option<TimingsBody>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResponseStatus {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

/// The reason why a response is cut off.
#[derive(Debug, Serialize)]
pub(super) struct IncompleteDetails {
    pub(super) reason: &'static str,
}

/// The reason why a response failed.
#[derive(Debug, Serialize)]
pub(super) struct ErrorBody {
    code: &'static str,
    message: String,
}

// === impl ErrorBody ===

impl From<&ApiError> for ErrorBody {
    /// The error under the one of the reference's words that fits every failure of a running response.
    fn from(error: &ApiError) -> Self {
        Self { code: "server_error", message: error.message().to_owned() }
    }
}
