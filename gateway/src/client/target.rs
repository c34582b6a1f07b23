//! An endpoint with the key that it is sent.

use super::api_secret::ApiSecret;
use super::endpoint::Endpoint;

/// An endpoint, and what it is to be sent with every request.
#[derive(Debug, Clone)]
pub struct Target {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The API key, if it needs one.
    pub api_key: Option<ApiSecret>,
}
