//! Writes the metadata that only single kinds of models have, and refuses what their arithmetic does not have.

use super::config::Config;
use super::metadata::Entries;
use super::rope::RopeParameters;
use crate::checkpoint::OpenError;

pub(super) fn deepseek_v2(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.latent_attention(config)?;
    // Choosing greedily, a model has no groups, whatever it says of them.
    if config.text("topk_method")? == Some("group_limited_greedy") {
        entries.groups(config)?;
    }
    Ok(())
}

pub(super) fn deepseek_v3(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.latent_attention(config)?;
    entries.groups(config)?;
    entries.set("expert_gating_func", SIGMOID);
    Ok(())
}

/// GGUF's number of the sigmoid among the scores of routers.
const SIGMOID: u32 = 2;

pub(super) fn gemma2(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    /// Layers of the model with 27 billion parameters.
    const LAYERS_27B: u32 = 46;
    entries.grouped_attention(config)?;
    check_query_scale(config, LAYERS_27B)
}

pub(super) fn gemma3(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    /// Layers of the model with 27 billion parameters.
    const LAYERS_27B: u32 = 62;
    entries.grouped_attention(config)?;
    // Configurations of models that also see leave out what the smallest of them has.
    for (suffix, usual) in
        [("attention.head_count", 8_u32), ("attention.head_count_kv", 4), ("context_length", 131_072)]
    {
        entries.set_default(suffix, usual);
    }
    for suffix in ["attention.key_length", "attention.value_length"] {
        entries.set_default(suffix, 256_u32);
    }
    entries.set_default("attention.layer_norm_rms_epsilon", 1e-6_f32);
    entries.set_default("rope.freq_base", 1_000_000.0_f32);
    let in_window = match config.number(&["rope_local_base_freq"])? {
        Some(base) => Some(f64::from(base)),
        None if config.get("rope_parameters").is_some() => RopeParameters::of(config, "sliding_attention")?.theta,
        None => None,
    };
    if let Some(base) = in_window {
        entries.set("rope.freq_base_swa", base as f32);
    }
    check_query_scale(config, LAYERS_27B)
}

/// Refuses a scale of queries that is not that of the heads' widths, or of the residual stream's share in the model of
/// `wide_layers` layers.
fn check_query_scale(config: &Config, wide_layers: u32) -> Result<(), OpenError> {
    let Some(found) = config.number(&["query_pre_attn_scalar"])? else { return Ok(()) };
    let share =
        || Ok::<_, OpenError>(config.required(&["hidden_size"])? / config.required(&["num_attention_heads"])?.max(1));
    let expected = match config.count(&["head_dim"])? {
        Some(head) if config.required(&["num_hidden_layers"])? != wide_layers => head,
        None if config.required(&["num_hidden_layers"])? != wide_layers => return Ok(()),
        _ => share()?,
    };
    if found == expected as f32 {
        return Ok(());
    }
    Err(config.wrong("query_pre_attn_scalar", expected.to_string(), found))
}

pub(super) fn glm4_moe(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    entries.set("expert_gating_func", SIGMOID);
    Ok(())
}

pub(super) fn granite(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    for (ours, theirs) in [
        ("attention.scale", "attention_multiplier"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("logit_scale", "logits_scaling"),
    ] {
        if let Some(factor) = config.number(&[theirs])? {
            entries.set(ours, factor);
        }
    }
    Ok(())
}

pub(super) fn gpt_oss(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    // The plain width is that of an expert.
    let width = config.required(&["intermediate_size"])?;
    entries.set("expert_feed_forward_length", width);
    // Every frequency that is stretched is stretched by a part of its own.
    let rope = RopeParameters::of(config, "full_attention")?;
    if let Some(found) = rope.flag("truncate")?.filter(|truncate| *truncate && rope.is_yarn()) {
        return Err(config.wrong("truncate", "false".to_owned(), found));
    }
    Ok(())
}

pub(super) fn hunyuan_moe(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    // The plain width is that of an expert and of the network beside them.
    let width = config.required(&["intermediate_size"])?;
    entries.set("expert_feed_forward_length", width);
    entries.set("expert_shared_feed_forward_length", width);
    Ok(())
}

pub(super) fn ministral3(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    let rope = RopeParameters::of(config, "full_attention")?;
    if rope.is_yarn() {
        if let Some(mscale) = rope.number("mscale")?.filter(|mscale| *mscale != 1.0) {
            return Err(config.wrong("mscale", "1".to_owned(), mscale));
        }
        for (ours, theirs) in [
            ("rope.scaling.yarn_log_multiplier", "mscale_all_dim"),
            ("attention.temperature_scale", "llama_4_scaling_beta"),
        ] {
            if let Some(number) = rope.number(theirs)? {
                entries.set(ours, number as f32);
            }
        }
    }
    Ok(())
}

pub(super) fn smollm3(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    check_layers_without_positions(config)
}

/// Refuses a list of layers without positions that are others than every fourth.
pub(super) fn check_layers_without_positions(config: &Config) -> Result<(), OpenError> {
    let Some(layers) = config.get("no_rope_layers").and_then(|layers| layers.as_array()) else { return Ok(()) };
    for (layer, found) in layers.iter().enumerate() {
        // The list has 1 for layers with positions.
        let expected = u64::from(!(layer + 1).is_multiple_of(4));
        if found.as_u64() != Some(expected) {
            return Err(config.wrong(&format!("no_rope_layers of layer {layer}"), expected.to_string(), found));
        }
    }
    Ok(())
}
