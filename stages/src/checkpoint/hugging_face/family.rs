//! A kind of model in Hugging Face's form: how its configuration and its tensors are read.

use serde_json::Value as Json;

use super::config::{Config, shown};
use super::families;
use super::metadata::Entries;
use super::names::{self, Place};
use crate::checkpoint::OpenError;

/// A kind of model.
pub(super) struct Family {
    /// Its names in configurations (`model_type`).
    pub(super) model_types: &'static [&'static str],
    /// Its name in GGUF files.
    pub(super) architecture: &'static str,
    /// True if llama.cpp's converter reorders the rows of Q and K so that RoPE rotates neighbours. In a folder they are
    /// in the authors' order, in which RoPE rotates the halves of a head.
    pub(super) reordered: bool,
    /// True if norms are stored without the one that they add to.
    pub(super) norms_minus_one: bool,
    /// Names of tensors that differ from the usual ones.
    pub(super) names: &'static [(&'static str, &'static str)],
    /// Keys of the configuration that must have one of these values, where they are there: the arithmetic is fixed.
    pub(super) fixed: &'static [(&'static str, &'static [Fixed])],
    /// The place of a tensor by its name, in a model of so many layers of which so many further ones are left out.
    pub(super) place: fn(&Self, &str, u32, u32) -> Option<Place>,
    /// The first rows of the table of positions are left out, if this says so: no text has them.
    pub(super) skips_positions: bool,
    /// The order of the values of experts that lie together.
    pub(super) experts: ExpertLayout,
    /// The kind of attention of each layer, for a configuration that lists it (`layer_types`).
    pub(super) layer_type: LayerType,
    /// Writes metadata that only this kind has.
    pub(super) describe: fn(&mut Entries, &Config) -> Result<(), OpenError>,
}

/// A value of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fixed {
    Flag(bool),
    Number(f64),
    Text(&'static str),
    EmptyList,
}

/// The order of the values of all experts in one tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpertLayout {
    /// `[expert][row][column]`, gates before ups.
    Rows,
    /// `[expert][column][row]`, gates before ups.
    Transposed,
    /// `[expert][column][row]`, gates and ups in turns.
    TransposedInTurns,
}

/// The kinds of attention of a model's layers.
#[derive(Clone, Copy)]
pub(super) enum LayerType {
    /// All layers have the same, with a window or without.
    Uniform,
    /// Layer by layer: true for those that see a chunk. The others see all tokens.
    Chunks(fn(usize) -> bool),
    /// Layer by layer: true for those with a window.
    Windows(fn(usize) -> bool),
    /// As the list says.
    Listed,
}

/// The values of a kind that differs in nothing.
pub(super) const USUAL: Family = Family {
    model_types: &[],
    architecture: "",
    reordered: false,
    norms_minus_one: false,
    names: &[],
    fixed: &[("hidden_act", &[Fixed::Text("silu"), Fixed::Text("swish")])],
    place: names::place,
    skips_positions: false,
    experts: ExpertLayout::Rows,
    layer_type: LayerType::Uniform,
    describe: Entries::grouped_attention,
};

// === impl Family ===

impl Family {
    /// The kind of the model that `config` describes. Its fixed keys are checked.
    pub(super) fn of(config: &Config) -> Result<&'static Self, OpenError> {
        let found = config.text("model_type")?.unwrap_or_default();
        let known = families::ALL.iter().find(|family| family.model_types.contains(&found));
        let Some(family) = known else {
            let known: Vec<&str> = families::ALL.iter().flat_map(|family| family.model_types).copied().collect();
            let expected = format!("one of {}", known.join(", "));
            return Err(config.wrong("model_type", expected, format!("{found:?}")));
        };
        refuse_unknown_arithmetic(config)?;
        for (key, values) in family.fixed {
            if let Some(found) = config.get(key)
                && !values.iter().any(|value| value.is(found))
            {
                let expected = values.iter().map(Fixed::to_string).collect::<Vec<_>>().join(" or ");
                return Err(config.wrong(key, format!("{expected} in a {} model", family.architecture), shown(found)));
            }
        }
        family.check_layer_types(config)?;
        Ok(family)
    }

    /// True for a model that makes logits.
    pub(super) fn has_output(&self) -> bool {
        !matches!(self.architecture, "bert" | "nomic-bert")
    }

    fn check_layer_types(&self, config: &Config) -> Result<(), OpenError> {
        let Some(Json::Array(found)) = config.get("layer_types") else { return Ok(()) };
        if matches!(self.layer_type, LayerType::Listed) {
            return Ok(());
        }
        for (layer, kind) in found.iter().enumerate() {
            let expected = match self.layer_type {
                LayerType::Windows(window) if window(layer) => "sliding_attention",
                LayerType::Chunks(chunk) if chunk(layer) => "chunked_attention",
                LayerType::Windows(_) | LayerType::Chunks(_) | LayerType::Listed => "full_attention",
                LayerType::Uniform if kind == "sliding_attention" && found.iter().all(|other| other == kind) => {
                    continue;
                }
                LayerType::Uniform => "full_attention",
            };
            if kind != expected {
                let field = format!("layer_types of layer {layer}");
                return Err(config.wrong(
                    &field,
                    format!("{expected:?} in a {} model", self.architecture),
                    shown(kind),
                ));
            }
        }
        Ok(())
    }
}

/// Keys that change the arithmetic of any kind in ways that none implements, unless they are false.
const NOT_IMPLEMENTED: [&str; 6] =
    ["alibi", "clip_qkv", "dual_chunk_attention_config", "qk_layernorm", "use_parallel_residual", "use_sliding_window"];

/// Refuses a configuration with such a key.
fn refuse_unknown_arithmetic(config: &Config) -> Result<(), OpenError> {
    let set = |key: &&&str| config.get(key).is_some_and(|found| *found != Json::Bool(false));
    match NOT_IMPLEMENTED.iter().find(set) {
        Some(key) => {
            let found = config.get(key).map(shown).unwrap_or_default();
            Err(config.wrong(key, "false or no such key, as it is not implemented".to_owned(), found))
        }
        None => Ok(()),
    }
}

// === impl Fixed ===

impl Fixed {
    fn is(&self, found: &Json) -> bool {
        match self {
            Self::Flag(flag) => found.as_bool() == Some(*flag),
            Self::Number(number) => found.as_f64() == Some(*number),
            Self::Text(text) => found.as_str() == Some(text),
            Self::EmptyList => found.as_array().is_some_and(Vec::is_empty),
        }
    }
}

impl std::fmt::Display for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::EmptyList => f.write_str("[]"),
        }
    }
}
