//! The configuration of LFM2: the layers that are convolutions, and the width that feed-forward networks are rounded to
//! (`configuration_lfm2.py` and `modeling_lfm2.py` of transformers).

use serde_json::Value as Json;

use super::config::{Config, shown};
use super::metadata::Entries;
use crate::checkpoint::OpenError;

/// Names of tensors that differ from the usual ones.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("operator_norm", "attn_norm"),
    ("ffn_norm", "ffn_norm"),
    ("self_attn.out_proj", "attn_output"),
    ("self_attn.q_layernorm", "attn_q_norm"),
    ("self_attn.k_layernorm", "attn_k_norm"),
    ("conv.in_proj", "shortconv.in_proj"),
    ("conv.conv", "shortconv.conv"),
    ("conv.out_proj", "shortconv.out_proj"),
    ("feed_forward.w1", "ffn_gate"),
    ("feed_forward.w2", "ffn_down"),
    ("feed_forward.w3", "ffn_up"),
];

/// As many layers as any model may have.
const LAYERS_MAX: u32 = 1024;

/// Writes the metadata of convolutions and attention.
pub(super) fn describe(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    let kv_heads = config.required(&["num_key_value_heads"])?;
    let kv_heads: Vec<u32> =
        attention_layers(config)?.into_iter().map(|attention| if attention { kv_heads } else { 0 }).collect();
    entries.set("attention.head_count_kv", &kv_heads[..]);
    entries.set("shortconv.l_cache", config.required(&["conv_L_cache"])?);
    entries.set("feed_forward_length", feed_forward(config)?);
    if let Some(epsilon) = config.number(&["norm_eps"])? {
        entries.set("attention.layer_norm_rms_epsilon", epsilon);
    }
    Ok(())
}

/// True for each layer of attention: newer configurations list the types of layers, older ones the numbers of these.
fn attention_layers(config: &Config) -> Result<Vec<bool>, OpenError> {
    let count = config.required(&["num_hidden_layers"])?;
    let wrong = |key: &str, found: String| {
        let expected = format!("\"conv\" or \"full_attention\" for each of {count} layers");
        config.wrong(key, expected, found)
    };
    if count > LAYERS_MAX {
        return Err(wrong("num_hidden_layers", count.to_string()));
    }
    if let Some(types) = config.get("layer_types") {
        let types = types.as_array().map(Vec::as_slice).unwrap_or_default();
        if types.len() != count as usize {
            return Err(wrong("layer_types", format!("{} of them", types.len())));
        }
        let is_attention = |kind: &Json| match kind.as_str() {
            Some("full_attention") => Ok(true),
            Some("conv") => Ok(false),
            _ => Err(wrong("layer_types", shown(kind))),
        };
        return types.iter().map(is_attention).collect();
    }
    let Some(Json::Array(numbers)) = config.get("full_attn_idxs") else {
        return Err(wrong("layer_types", "no such list".to_owned()));
    };
    Ok((0..u64::from(count)).map(|layer| numbers.iter().any(|number| number.as_u64() == Some(layer))).collect())
}

/// The width of feed-forward networks: two thirds of the one that is named, times a factor, rounded up, if the
/// configuration says so.
fn feed_forward(config: &Config) -> Result<u32, OpenError> {
    let width = config.required(&["block_ff_dim", "intermediate_size"])?;
    if config.flag("block_auto_adjust_ff_dim")? == Some(false) {
        return Ok(width);
    }
    let factor = config.get("block_ffn_dim_multiplier").map(|factor| config.finite("block_ffn_dim_multiplier", factor));
    let scaled = factor.transpose()?.unwrap_or(1.0) * f64::from((u64::from(width) * 2 / 3) as u32);
    let multiple = config.count(&["block_multiple_of"])?.unwrap_or(256);
    // A cast to an integer saturates, and rounds down.
    let rounded = (scaled as u32).checked_next_multiple_of(multiple);
    let expected = || config.wrong("block_multiple_of", "a multiple below 2^32".to_owned(), multiple);
    rounded.ok_or_else(expected)
}
