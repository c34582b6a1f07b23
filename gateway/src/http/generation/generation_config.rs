//! The sampling that a model's authors recommend: the defaults for requests that say nothing.

use serde::Serialize;

/// Values for parameters that a request leaves out, under the names that requests have for them. `None` where the
/// model's file says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct GenerationConfig {
    /// The temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Number of the likeliest tokens to choose from. 0 is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Probability mass of the likeliest tokens to choose from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Least probability of a token, as a share of the likeliest one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Probability with which the likeliest tokens are excluded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_probability: Option<f64>,
    /// Least probability of a token that is excluded so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_threshold: Option<f64>,
    /// Penalty for tokens that were used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// Number of tokens at the end of prompt and answer that the penalty counts. -1 is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_last_n: Option<i32>,
}
