//! The tensors that a model must have, and their shapes. Pure: the check reads a file's header, before anything is
//! mapped.

use super::config::ModelConfig;
use super::error::UnsupportedModel;
use super::{EMBEDDING, OUTPUT, OUTPUT_NORM, ROPE_FACTORS};
use crate::gguf::Header;

/// The rule for the presence of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
    Refused,
}

// === impl ModelConfig ===

impl ModelConfig {
    /// Checks that the file has every tensor of every layer in the right shape, and no tensor that would be ignored.
    ///
    /// # Errors
    /// [`UnsupportedModel::Tensor`] for the first tensor that is missing, has another shape, or is unknown.
    pub fn check_tensors(&self, header: &Header) -> Result<(), UnsupportedModel> {
        for tensor in &header.tensors {
            let (presence, dims) = match layer_suffix(&tensor.name) {
                Some((layer, suffix)) if layer < self.layers => self.layer_tensor(suffix),
                _ => self.other_tensor(&tensor.name),
            };
            let wrong = |expected: String, found: String| UnsupportedModel::Tensor {
                name: tensor.name.clone(),
                expected,
                found,
            };
            if presence == Presence::Refused {
                return Err(wrong(format!("none of this name in a {} model", self.family), "one".to_owned()));
            }
            if tensor.dims != dims {
                return Err(wrong(format!("dimensions {dims:?}"), format!("{:?}", tensor.dims)));
            }
        }
        let names = (0..self.layers).flat_map(|layer| self.required_in(layer));
        for name in names.chain([EMBEDDING.to_owned(), OUTPUT_NORM.to_owned()]) {
            if header.tensor(&name).is_none() {
                let (expected, found) = ("one in every model of this family".to_owned(), "none".to_owned());
                return Err(UnsupportedModel::Tensor { name, expected, found });
            }
        }
        Ok(())
    }

    fn required_in(&self, layer: u32) -> impl Iterator<Item = String> {
        let required = LAYER_SUFFIXES.into_iter().filter(|suffix| self.layer_tensor(suffix).0 == Presence::Required);
        required.map(move |suffix| format!("blk.{layer}.{suffix}"))
    }

    /// The rule for a layer's tensor, and its dimensions in the file's order: the row's length first.
    fn layer_tensor(&self, suffix: &str) -> (Presence, Vec<u64>) {
        let biases = match self.family.biases() {
            Some(true) => Presence::Required,
            Some(false) => Presence::Refused,
            None => Presence::Optional,
        };
        let head_norms = if self.family.head_norms() { Presence::Required } else { Presence::Refused };
        let (presence, dims): (Presence, &[usize]) = match suffix {
            "attn_norm.weight" | "ffn_norm.weight" => (Presence::Required, &[self.hidden]),
            "attn_q.weight" => (Presence::Required, &[self.hidden, self.query_width()]),
            "attn_k.weight" => (Presence::Required, &[self.hidden, self.key_width()]),
            "attn_v.weight" => (Presence::Required, &[self.hidden, self.value_width()]),
            "attn_output.weight" => (Presence::Required, &[self.attention_width(), self.hidden]),
            "ffn_gate.weight" | "ffn_up.weight" => (Presence::Required, &[self.hidden, self.feed_forward]),
            "ffn_down.weight" => (Presence::Required, &[self.feed_forward, self.hidden]),
            "attn_q.bias" => (biases, &[self.query_width()]),
            "attn_k.bias" => (biases, &[self.key_width()]),
            "attn_v.bias" => (biases, &[self.value_width()]),
            "attn_q_norm.weight" | "attn_k_norm.weight" => (head_norms, &[self.key]),
            _ => (Presence::Refused, &[]),
        };
        (presence, dims.iter().map(|dim| *dim as u64).collect())
    }

    fn other_tensor(&self, name: &str) -> (Presence, Vec<u64>) {
        let (presence, dims): (Presence, &[usize]) = match name {
            EMBEDDING => (Presence::Required, &[self.hidden, self.vocabulary]),
            OUTPUT => (Presence::Optional, &[self.hidden, self.vocabulary]),
            OUTPUT_NORM => (Presence::Required, &[self.hidden]),
            ROPE_FACTORS => (Presence::Optional, &[self.rope_pairs()]),
            _ => (Presence::Refused, &[]),
        };
        (presence, dims.iter().map(|dim| *dim as u64).collect())
    }
}

const LAYER_SUFFIXES: [&str; 14] = [
    "attn_norm.weight",
    "ffn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
];

/// The layer and the suffix of `blk.<layer>.<suffix>`.
fn layer_suffix(name: &str) -> Option<(u32, &str)> {
    let (layer, suffix) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, suffix))
}
