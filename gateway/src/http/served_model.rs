//! One of the models that this server serves: a cluster's pipeline, its text model, and what clients are told of it.

use std::sync::Arc;

use engine::generate::Pipeline;
use schema::ClusterName;

use super::app_state::Settings;
use super::cluster::{DrillRunner, PinStore};
use super::error::ApiError;
use super::generation::generation_config::GenerationConfig;
use super::generation::text_model::TextModel;
use super::live::LiveFeed;
use super::token_options::SamplingRules;

/// Everything that a request to one model may need.
pub struct ServedModel {
    /// The cluster that serves it.
    pub cluster: ClusterName,
    /// Generates tokens.
    pub pipeline: Arc<dyn Pipeline>,
    /// Encodes text to tokens, and decodes tokens to text.
    pub text: Arc<dyn TextModel>,
    /// Its description.
    pub model: ModelInfo,
    /// The HTTP server's settings, which all models share.
    pub settings: Arc<Settings>,
    /// The live picture of its cluster, for dashboards.
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

// === impl ServedModel ===

impl ServedModel {
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
}
