//! The state that all requests share: the pipeline, the text model, the model's description, the API keys and the HTTP
//! settings.

use std::sync::Arc;
use std::time::Duration;

use engine::generate::Pipeline;

use super::auth::AccessControl;
use super::cluster::{DrillRunner, PinStore};
use super::error::ApiError;
use super::limits;
use super::live::LiveFeed;
use super::model_alias::{self, ModelAlias};
use super::token_options::SamplingRules;
use crate::http::generation::generation_config::GenerationConfig;
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
    /// The API keys and their use.
    pub access: AccessControl,
    /// The HTTP server's settings.
    pub settings: Settings,
    /// The live picture of the cluster, for dashboards.
    pub live: LiveFeed,
    /// Writes operators' pins. `None` if requests may not.
    pub pins: Option<PinStore>,
    /// Runs drills of the cluster. `None` if requests may start none.
    pub drills: Option<Arc<DrillRunner>>,
}

/// The model's description for clients.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelInfo {
    /// The model's id, as requests give it in `model`.
    pub name: String,
    /// Most tokens of a prompt and its answer together.
    pub context_tokens: u32,
    /// Time of loading, in seconds since 1970.
    pub created_s: u64,
    /// The sampling that its file recommends. Without any, the APIs' own defaults count.
    pub generation_config: GenerationConfig,
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
    /// Further names by which requests may call the model.
    pub model_aliases: Vec<ModelAlias>,
    /// Host names of this machine.
    pub own_hosts: Vec<String>,
    /// Further host names that requests may use.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Origins of web pages that may use the server, besides pages of this machine.
    pub allowed_origins: Vec<AllowedOrigin>,
}

// === impl AppState ===

impl AppState {
    /// Checks that the pipeline serves.
    ///
    /// # Errors
    /// A 503 with the reason if it does not.
    pub(super) fn check_serving(&self) -> Result<(), ApiError> {
        let status = self.pipeline.status();
        if status.serving {
            return Ok(());
        }
        let reason = if status.reason.is_empty() { "the pipeline is not complete" } else { &status.reason };
        Err(ApiError::unavailable(format!("The model cannot be served now: {reason}.")))
    }

    /// Most tokens in a sequence: the model's context, or less if the stages' memory is short.
    pub(super) fn context_tokens(&self) -> u32 {
        // 0 while the pipeline does not serve: it does not know the stages' memory yet, and it rejects requests itself.
        match self.pipeline.status().context_tokens {
            0 => self.model.context_tokens,
            room => room.min(self.model.context_tokens),
        }
    }
}

// === impl ModelInfo ===

impl ModelInfo {
    /// The rules of an API for this model: what its file recommends comes before the API's own defaults.
    pub(super) fn sampling(&self, rules: SamplingRules) -> SamplingRules {
        rules.with(&self.generation_config)
    }

    /// Checks that requests may call the model by `name`.
    ///
    /// # Errors
    /// A 404 if it is neither the model's name nor one of `aliases`.
    pub(super) fn check_name(&self, name: &str, aliases: &[ModelAlias]) -> Result<(), ApiError> {
        let is_known = model_alias::names(&self.name, aliases, name);
        if is_known { Ok(()) } else { Err(ApiError::model_not_found(name, &self.name)) }
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
