//! `GET /api/tags` and `GET /api/ps`: the models, and those of them that are served at present.

use engine::view::ClusterView;
use http::StatusCode;
use schema::StageName;
use schema::record::DeviceKind;
use serde::Serialize;
use warp::reply::Response;

use super::{model_name, timestamp};
use crate::http::app_state::AppState;
use crate::http::error::json_response;
use crate::http::generation::text_model::ModelDescription;
use crate::http::served_model::ServedModel;

/// The body of a list.
#[derive(Debug, Serialize)]
struct ModelList<M> {
    models: Vec<M>,
}

/// A model that is there.
#[derive(Debug, Serialize)]
struct ModelEntry<'a> {
    name: String,
    model: String,
    /// The time at which this server loaded it.
    modified_at: String,
    size: u64,
    digest: &'a str,
    details: Details<'a>,
    capabilities: Vec<&'static str>,
}

/// A model that is served.
#[derive(Debug, Serialize)]
struct ServedEntry<'a> {
    name: String,
    model: String,
    size: u64,
    digest: &'a str,
    details: Details<'a>,
    /// Far away: the model stays loaded.
    expires_at: String,
    /// Bytes of the layers that GPUs hold.
    size_vram: u64,
    context_length: u32,
}

/// Facts about a model's file.
#[derive(Debug, Serialize)]
pub(super) struct Details<'a> {
    parent_model: &'static str,
    format: &'static str,
    family: &'a str,
    families: [&'a str; 1],
    parameter_size: String,
    quantization_level: &'a str,
}

/// The models, whether or not they are served at present.
pub(super) fn tags(state: &AppState) -> Response {
    let models = state.models.all();
    json_response(StatusCode::OK, &ModelList { models: models.iter().map(|model| ModelEntry::new(model)).collect() })
}

/// The models that are served.
pub(super) fn ps(state: &AppState) -> Response {
    let models = state.models.all();
    let served = models.iter().filter(|model| model.pipeline.status().serving);
    json_response(StatusCode::OK, &ModelList { models: served.map(|model| ServedEntry::new(model)).collect() })
}

/// The features of the model, by Ollama's names.
pub(super) fn capabilities(description: &ModelDescription) -> Vec<&'static str> {
    let features = [
        (!description.embedding.only, "completion"),
        (description.takes_tools, "tools"),
        (description.fim.is_some(), "insert"),
        (description.reasons, "thinking"),
        (description.metadata.contains_key(&format!("{}.pooling_type", description.architecture)), "embedding"),
    ];
    features.into_iter().filter_map(|(has, name)| has.then_some(name)).collect()
}

/// Bytes of the weights that the serving stages hold on GPUs.
fn gpu_bytes(view: &ClusterView) -> u64 {
    let claims = view.serving().map(|served| served.claims).unwrap_or_default();
    let is_on_gpu =
        |stage: &StageName| view.stages.get(stage).is_some_and(|record| record.value.device != DeviceKind::Cpu);
    claims.into_iter().filter(|claim| is_on_gpu(&claim.value.stage)).map(|claim| claim.value.weights_bytes).sum()
}

// === impl ModelEntry ===

impl<'a> ModelEntry<'a> {
    fn new(served: &'a ServedModel) -> Self {
        let description = served.text.description();
        let name = model_name::tagged(&served.model.name);
        Self {
            name: name.clone(),
            model: name,
            modified_at: timestamp::of_seconds(served.model.created_s),
            size: description.file_bytes,
            digest: &description.fingerprint,
            details: Details::new(description),
            capabilities: capabilities(description),
        }
    }
}

// === impl ServedEntry ===

impl<'a> ServedEntry<'a> {
    fn new(served: &'a ServedModel) -> Self {
        let description = served.text.description();
        let name = model_name::tagged(&served.model.name);
        Self {
            name: name.clone(),
            model: name,
            size: description.file_bytes,
            digest: &description.fingerprint,
            details: Details::new(description),
            expires_at: timestamp::never(),
            size_vram: gpu_bytes(&served.pipeline.view()),
            context_length: served.context_tokens(),
        }
    }
}

// === impl Details ===

impl<'a> Details<'a> {
    pub(super) fn new(description: &'a ModelDescription) -> Self {
        Self {
            parent_model: "",
            format: "gguf",
            family: &description.architecture,
            families: [&description.architecture],
            parameter_size: parameter_size(description.parameters),
            quantization_level: &description.quantization,
        }
    }
}

/// A number of weights as Ollama writes it, such as `134.52M`.
fn parameter_size(parameters: u64) -> String {
    let in_units = |unit: u64| parameters as f64 / unit as f64;
    match parameters {
        1_000_000_000.. => format!("{:.1}B", in_units(1_000_000_000)),
        1_000_000.. => format!("{:.2}M", in_units(1_000_000)),
        1_000.. => format!("{:.0}K", in_units(1_000)),
        _ => parameters.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_weights_are_rounded() {
        let sizes = [12, 51_200, 134_515_008, 1_235_814_432, 14_768_307_200].map(parameter_size);
        assert_eq!(sizes, ["12", "51K", "134.52M", "1.2B", "14.8B"]);
    }

    #[test]
    fn capabilities_are_those_of_template_and_vocabulary() {
        let plain = ModelDescription::default();
        assert_eq!(capabilities(&plain), ["completion"]);
        let able = ModelDescription { takes_tools: true, reasons: true, ..plain.clone() };
        assert_eq!(capabilities(&able), ["completion", "tools", "thinking"]);
        let metadata = [("qwen3.pooling_type".to_owned(), 3.into())].into_iter().collect();
        let embeds = ModelDescription { architecture: "qwen3".to_owned(), metadata, ..plain };
        assert_eq!(capabilities(&embeds), ["completion", "embedding"]);
    }
}
