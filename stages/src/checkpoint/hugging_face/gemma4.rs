//! Reads the keys that only configurations of Gemma 4 have: widths and numbers of heads by layer.

use serde_json::Value as Json;

use super::config::{Config, shown};
use super::metadata::Entries;
use super::rope::RopeParameters;
use crate::checkpoint::OpenError;
use crate::gguf::{Numbers, Value};

/// The width and the key-value heads of a layer's heads.
#[derive(Clone, Copy, PartialEq)]
struct Heads {
    width: u32,
    kv_heads: u32,
}

/// Writes the metadata of attention.
pub(super) fn describe(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    let layers = layer_types(config)?;
    let heads = (0..layers.len()).map(|layer| heads(config, layer, layers[layer])).collect::<Result<Vec<_>, _>>()?;
    let of = |in_window: bool| {
        layers.iter().zip(&heads).filter(move |(own, _)| **own == in_window).map(|(_, own)| own.width)
    };
    for (suffix, in_window) in [("", false), ("_swa", true)] {
        let Some(width) = of(in_window).next() else { continue };
        if let Some(other) = of(in_window).find(|other| *other != width) {
            return Err(config.wrong("head_dim", format!("{width} in all layers of a kind"), other));
        }
        for part in ["attention.key_length", "attention.value_length", "rope.dimension_count"] {
            entries.set(&format!("{part}{suffix}"), width);
        }
    }
    let kv_heads: Vec<u32> = heads.iter().map(|own| own.kv_heads).collect();
    entries.set("attention.head_count_kv", &kv_heads[..]);
    entries.set("attention.sliding_window_pattern", Value::Numbers(Numbers::bools(&layers)));
    entries.set("attention.sliding_window", config.required(&["sliding_window"])?);
    entries.set("attention.shared_kv_layers", config.count(&["num_kv_shared_layers"])?.unwrap_or(0));
    entries.set("embedding_length_per_layer_input", config.count(&["hidden_size_per_layer_input"])?.unwrap_or(0));
    if let Some(base) = RopeParameters::of(config, "sliding_attention")?.theta {
        entries.set("rope.freq_base_swa", base as f32);
    }
    Ok(())
}

/// Number of pairs in a head of layers without a window.
pub(super) fn pairs(config: &Config) -> Result<u32, OpenError> {
    let layers = layer_types(config)?;
    let global = layers.iter().position(|in_window| !in_window);
    let Some(layer) = global else {
        return Err(config.wrong("layer_types", "a layer of \"full_attention\"".to_owned(), "none"));
    };
    Ok(heads(config, layer, false)?.width / 2)
}

/// True for each layer with a window.
fn layer_types(config: &Config) -> Result<Vec<bool>, OpenError> {
    /// As many layers as any model may have.
    const LAYERS_MAX: u32 = 1024;
    let count = config.required(&["num_hidden_layers"])?;
    let wrong = |found: String| {
        let expected = format!("\"sliding_attention\" or \"full_attention\" for each of {count} layers");
        config.wrong("layer_types", expected, found)
    };
    let Some(Json::Array(types)) = config.get("layer_types") else { return Err(wrong("no such list".to_owned())) };
    if types.len() as u64 != u64::from(count) || count > LAYERS_MAX {
        return Err(wrong(format!("{} of them", types.len())));
    }
    let in_window = |kind: &Json| match kind.as_str() {
        Some("sliding_attention") => Ok(true),
        Some("full_attention") => Ok(false),
        _ => Err(wrong(shown(kind))),
    };
    types.iter().map(in_window).collect()
}

/// The heads of a layer: those that the newer configurations list by layer, or those that the older have for all layers
/// without a window.
fn heads(config: &Config, layer: usize, in_window: bool) -> Result<Heads, OpenError> {
    let own = config.get("per_layer_config").and_then(|layers| layers.get(layer.to_string()));
    let number = |key: &str, global: &str| {
        if let Some(found) = own.and_then(|own| own.get(key)).filter(|found| !found.is_null()) {
            let number = found.as_u64().and_then(|number| u32::try_from(number).ok());
            let field = format!("per_layer_config of layer {layer}");
            return number.ok_or_else(|| config.wrong(&field, format!("a whole number as {key}"), shown(found)));
        }
        match config.count(&[global])?.filter(|_| !in_window) {
            Some(number) => Ok(number),
            None => config.required(&[key]),
        }
    };
    Ok(Heads {
        width: number("head_dim", "global_head_dim")?,
        kv_heads: number("num_key_value_heads", "num_global_key_value_heads")?,
    })
}
