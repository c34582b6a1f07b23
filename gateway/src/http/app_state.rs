//! The state that all requests share: the models, the API keys and the HTTP settings.

use std::sync::Arc;
use std::time::Duration;

use super::auth::AccessControl;
use super::limits;
use super::model_alias::ModelAlias;
use super::models::Models;
use crate::http::server::host::AllowedHost;
use crate::http::server::origin::AllowedOrigin;

/// Everything that requests share.
pub struct AppState {
    /// The models that are served.
    pub models: Models,
    /// The API keys and their use.
    pub access: AccessControl,
    /// The HTTP server's settings.
    pub settings: Arc<Settings>,
}

/// The HTTP server's settings. The defaults are the bounds in `limits.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most connections at once. For one more, the server closes the connection that has been half open or idle for
    /// longest. If all are busy, it answers the new one with 503.
    pub connections_max: usize,
    /// Most connections of one address.
    pub connections_per_address_max: usize,
    /// Most half-open or idle connections of one address.
    pub waiting_per_address_max: usize,
    /// Timeout until a request's head is complete. It also closes idle connections.
    pub head_time: Duration,
    /// Timeout until a request's body is complete.
    pub body_time: Duration,
    /// Most bytes of a request's body.
    pub body_bytes_max: usize,
    /// Longest time that a client may read nothing of a waiting answer.
    pub stall_time: Duration,
    /// Time for running requests to finish after the order to stop.
    pub drain_time: Duration,
    /// Time without an event after which a stream sends a comment.
    pub ping_period: Duration,
    /// Longest time of a generation, queue included.
    pub generation_time: Duration,
    /// Most choices of one request.
    pub choices_max: u32,
    /// Most tokens of a chat's answer if its request sets no limit.
    pub default_max_tokens: u32,
    /// Most responses that are kept for `previous_response_id`. 0 keeps none.
    pub stored_responses_max: usize,
    /// Most bytes of the kept responses together.
    pub stored_bytes_max: usize,
    /// Time after which a kept response is removed.
    pub stored_age_max: Duration,
    /// True if requests may bring a chat template of their own.
    pub trusts_request_chat_template: bool,
    /// Further names by which requests may call the first model.
    pub model_aliases: Vec<ModelAlias>,
    /// Host names of this machine.
    pub own_hosts: Vec<String>,
    /// Further host names that requests may use.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Origins of web pages that may use the server, besides pages of this machine.
    pub allowed_origins: Vec<AllowedOrigin>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_address_max: limits::CONNECTIONS_PER_ADDRESS_MAX,
            waiting_per_address_max: limits::WAITING_PER_ADDRESS_MAX,
            head_time: limits::HEAD_TIME,
            body_time: limits::BODY_TIME,
            body_bytes_max: limits::BODY_BYTES_MAX,
            stall_time: limits::STALL_TIME,
            drain_time: limits::DRAIN_TIME,
            ping_period: limits::PING_PERIOD,
            generation_time: limits::GENERATION_TIME,
            choices_max: limits::CHOICES_MAX,
            default_max_tokens: limits::DEFAULT_MAX_TOKENS,
            stored_responses_max: limits::STORED_RESPONSES_MAX as usize,
            stored_bytes_max: limits::STORED_BYTES_MAX,
            stored_age_max: limits::STORED_AGE_MAX,
            trusts_request_chat_template: false,
            model_aliases: Vec::new(),
            own_hosts: Vec::new(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
        }
    }
}
