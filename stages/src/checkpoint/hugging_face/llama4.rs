//! Reads the keys that only configurations of Llama 4 have: chunks, the growth of scores, and the layers with experts.

use serde_json::Value as Json;

use super::config::{Config, shown};
use super::describe;
use super::metadata::Entries;
use crate::checkpoint::OpenError;

/// Number of experts of the model whose heads have no norms. GGUF files have no key that says so.
const EXPERTS_WITHOUT_NORMS: u32 = 128;

/// Writes the metadata of attention and experts.
pub(super) fn describe(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    describe::check_layers_without_positions(config)?;
    // The plain width is that of an expert and of the network beside them.
    entries.set("expert_feed_forward_length", config.required(&["intermediate_size"])?);
    if let Some(width) = config.count(&["intermediate_size_mlp"])? {
        entries.set("feed_forward_length", width);
    }
    let experts = config.required(&["num_local_experts"])?;
    let with_norms = experts != EXPERTS_WITHOUT_NORMS;
    if let Some(found) = config.flag("use_qk_norm")?.filter(|found| *found != with_norms) {
        return Err(config.wrong("use_qk_norm", format!("{with_norms} with {experts} experts"), found));
    }
    if let Some(chunk) = config.count(&["attention_chunk_size"])? {
        entries.set("attention.sliding_window", chunk);
    }
    if let Some(tuning) = config.get("attn_temperature_tuning")
        && !(tuning.as_bool() == Some(true) || tuning.as_u64().is_some_and(|number| number > 0))
    {
        return Err(config.wrong("attn_temperature_tuning", "true".to_owned(), shown(tuning)));
    }
    if let Some(length) = config.number(&["floor_scale"])? {
        entries.set("attention.temperature_length", length as u32);
    }
    if let Some(scale) = config.number(&["attn_scale"])? {
        entries.set("attention.temperature_scale", scale);
    }
    let step = config.count(&["interleave_moe_layer_step"])?.unwrap_or(1);
    entries.set("interleave_moe_layer_step", step);
    check_layers_with_experts(config, step)
}

/// Refuses a list of layers with experts that are others than every `step`th.
fn check_layers_with_experts(config: &Config, step: u32) -> Result<(), OpenError> {
    let Some(found) = config.get("moe_layers") else { return Ok(()) };
    let layers = config.required(&["num_hidden_layers"])?;
    let listed: Option<Vec<u64>> = found.as_array().and_then(|all| all.iter().map(Json::as_u64).collect());
    let expected = (0..u64::from(layers)).filter(|layer| (layer + 1).is_multiple_of(u64::from(step.max(1))));
    match listed {
        Some(listed) if expected.eq(listed.iter().copied()) => Ok(()),
        _ => Err(config.wrong("moe_layers", format!("every layer of step {step}"), shown(found))),
    }
}
