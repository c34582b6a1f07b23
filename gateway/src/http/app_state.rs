//! What the HTTP door stands before: a pipeline, a text model, and how the door behaves.

use std::sync::Arc;
use std::time::Duration;

use engine::generate::Pipeline;

use super::limits;
use crate::http::generation::text_model::TextModel;
use crate::http::server::host::AllowedHost;
use crate::http::server::origin::AllowedOrigin;

/// Everything a request may need.
pub struct AppState {
    /// Where tokens come from.
    pub pipeline: Arc<dyn Pipeline>,
    /// How text becomes tokens and back.
    pub text: Arc<dyn TextModel>,
    /// What is served.
    pub model: ModelInfo,
    /// How the door behaves.
    pub settings: Settings,
}

/// What clients may know of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The id that requests name.
    pub name: String,
    /// Most tokens of a prompt and its answer together.
    pub context_tokens: u32,
    /// When it was loaded, in seconds since 1970.
    pub created_s: u64,
}

/// How the door behaves towards clients; the defaults are the bounds of `limits.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Connections at once; for one more, the one that has been half open or idle for longest is closed, and it is told
    /// 503 when all are busy.
    pub connections_max: usize,
    /// Of these, of one address.
    pub connections_per_address_max: usize,
    /// Of these, half open or idle.
    pub waiting_per_address_max: usize,
    /// Until a request's head is complete, and until an idle connection is closed.
    pub head_time: Duration,
    /// Until a request's body is complete.
    pub body_time: Duration,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// How long a client may read nothing of a waiting answer.
    pub stall_time: Duration,
    /// How long running requests may go on after the order to stop.
    pub drain_time: Duration,
    /// Silence after which a stream sends a comment.
    pub ping_period: Duration,
    /// The longest a generation may take, queue included.
    pub generation_time: Duration,
    /// Choices of one request.
    pub choices_max: u32,
    /// Tokens of a chat's answer when its request does not say.
    pub default_max_tokens: u32,
    /// The names of this machine.
    pub own_hosts: Vec<String>,
    /// Other hosts under which clients may ask.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Web pages, beside those of this machine, that may use the server.
    pub allowed_origins: Vec<AllowedOrigin>,
}

// === impl AppState ===

impl AppState {
    /// Most tokens in a sequence: the model's, or less where the stages' memory is short.
    pub(super) fn context_tokens(&self) -> u32 {
        // A pipeline that does not serve knows no memory yet; it refuses requests itself.
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
