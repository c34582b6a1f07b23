//! The state that all requests share: the pipeline, the text model, the model's description and the HTTP settings.

use std::sync::Arc;
use std::time::Duration;

use engine::generate::Pipeline;

use super::limits;
use crate::http::generation::text_model::TextModel;
use crate::http::server::host::AllowedHost;
use crate::http::server::origin::AllowedOrigin;

/// Everything that a request handler may need.
pub struct AppState {
    /// Generates tokens.
    pub pipeline: Arc<dyn Pipeline>,
    /// Encodes text to tokens, and decodes tokens to text.
    pub text: Arc<dyn TextModel>,
    /// The served model.
    pub model: ModelInfo,
    /// The HTTP server's settings.
    pub settings: Settings,
}

/// The model's description for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The model's id, as requests give it in `model`.
    pub name: String,
    /// Most tokens of a prompt and its answer together.
    pub context_tokens: u32,
    /// Time of loading, in seconds since 1970.
    pub created_s: u64,
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
    /// Host names of this machine.
    pub own_hosts: Vec<String>,
    /// Further host names that requests may use.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Origins of web pages that may use the server, besides pages of this machine.
    pub allowed_origins: Vec<AllowedOrigin>,
}

// === impl AppState ===

impl AppState {
    /// Most tokens in a sequence: the model's context, or less if the stages' memory is short.
    pub(super) fn context_tokens(&self) -> u32 {
        // 0 while the pipeline does not serve: it does not know the stages' memory yet, and it rejects requests itself.
        match self.pipeline.status().context_tokens {
            0 => self.model.context_tokens,
            room => room.min(self.model.context_tokens),
        }
    }
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
            own_hosts: Vec::new(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
        }
    }
}
