//! `GET /props`: the properties of server and model.

use http::StatusCode;
use serde::Serialize;
use warp::reply::Response;

use crate::http::error::json_response;
use crate::http::served_model::ServedModel;
use crate::http::token_options::SamplingRules;

/// The properties, in llama-server's fields.
#[derive(Debug, Serialize)]
struct Props<'a> {
    default_generation_settings: GenerationSettings,
    /// Most sequences that run at once. They share the room for keys and values.
    total_slots: usize,
    model_alias: &'a str,
    /// The name of the model's file, without its folder.
    model_path: &'a str,
    modalities: Modalities,
    endpoint_slots: bool,
    endpoint_props: bool,
    endpoint_metrics: bool,
    chat_template: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template_tool_use: Option<&'a str>,
    bos_token: &'a str,
    eos_token: &'a str,
    build_info: &'static str,
    is_sleeping: bool,
}

#[derive(Debug, Serialize)]
struct GenerationSettings {
    n_ctx: u32,
    params: DefaultParams,
}

/// The values of `/infill` for parameters that a request leaves out.
#[derive(Debug, Serialize)]
struct DefaultParams {
    n_predict: i32,
    temperature: f64,
    top_k: u32,
    top_p: f64,
    min_p: f64,
    typical_p: f64,
    repeat_penalty: f64,
    /// -1 counts all.
    repeat_last_n: i64,
    presence_penalty: f64,
    frequency_penalty: f64,
}

#[derive(Debug, Serialize)]
struct Modalities {
    vision: bool,
    audio: bool,
}

/// The properties of this server and its model.
pub(super) fn show(state: &ServedModel) -> Response {
    let description = state.text.description();
    let defaults = state.model.sampling(SamplingRules::LLAMA_SERVER).defaults;
    let params = DefaultParams {
        n_predict: -1,
        temperature: defaults.temperature,
        top_k: defaults.top_k,
        top_p: defaults.top_p,
        min_p: defaults.min_p,
        typical_p: 1.0,
        repeat_penalty: defaults.repetition,
        repeat_last_n: defaults.last_tokens.map_or(-1, i64::from),
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
    };
    let props = Props {
        default_generation_settings: GenerationSettings { n_ctx: state.context_tokens(), params },
        total_slots: engine::limits::RUNNING_MAX,
        model_alias: &state.model.name,
        model_path: &description.file_name,
        modalities: Modalities { vision: false, audio: false },
        endpoint_slots: true,
        endpoint_props: false,
        endpoint_metrics: true,
        chat_template: description.chat_template.as_deref().unwrap_or_default(),
        chat_template_tool_use: description.tool_use_template.as_deref(),
        bos_token: &description.bos,
        eos_token: &description.eos,
        build_info: concat!("baton ", env!("CARGO_PKG_VERSION")),
        is_sleeping: false,
    };
    json_response(StatusCode::OK, &props)
}
