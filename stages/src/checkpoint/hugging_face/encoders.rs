//! Encoders in folders: the names of their tensors, and the parts of their metadata that only they have.

use super::config::Config;
use super::family::{Family, Fixed};
use super::metadata::Entries;
use super::names::Place;
use crate::checkpoint::OpenError;

/// Rows of the table of positions that no text of RoBERTa's kin has: positions count from behind the padding token.
pub(super) const POSITIONS_SKIPPED: u64 = 2;

/// Keys of BERT whose values are fixed.
pub(super) const BERT_FIXED: &[(&str, &[Fixed])] = &[
    ("hidden_act", &[Fixed::Text("gelu")]),
    ("position_embedding_type", &[Fixed::Text("absolute")]),
    ("is_decoder", &[Fixed::Flag(false)]),
    ("add_cross_attention", &[Fixed::Flag(false)]),
];

/// Keys of nomic-bert whose values are fixed.
pub(super) const NOMIC_FIXED: &[(&str, &[Fixed])] = &[("hidden_act", &[Fixed::Text("silu"), Fixed::Text("swish")])];

/// The names of a layer's tensors in BERT, without `.weight` and `.bias`.
pub(super) const BERT_NAMES: &[(&str, &str)] = &[
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
];

/// The same in nomic-bert.
pub(super) const NOMIC_NAMES: &[(&str, &str)] = &[
    ("attn.Wqkv", "attn_qkv"),
    ("attn.out_proj", "attn_output"),
    ("mlp.fc11", "ffn_up"),
    ("mlp.fc12", "ffn_gate"),
    ("mlp.fc2", "ffn_down"),
    ("norm1", "attn_output_norm"),
    ("norm2", "layer_output_norm"),
];

/// The names of tensors outside of layers.
const OUTSIDE: [(&str, &str); 7] = [
    ("embeddings.word_embeddings.weight", "token_embd.weight"),
    ("embeddings.position_embeddings.weight", "position_embd.weight"),
    ("embeddings.token_type_embeddings.weight", "token_types.weight"),
    ("embeddings.LayerNorm.weight", "token_embd_norm.weight"),
    ("embeddings.LayerNorm.bias", "token_embd_norm.bias"),
    ("emb_ln.weight", "token_embd_norm.weight"),
    ("emb_ln.bias", "token_embd_norm.bias"),
];

/// The beginnings of all names, in folders of models that were trained to fill in words.
const PREFIXES: [&str; 3] = ["bert.", "roberta.", "nomic_bert."];

/// The beginnings of names of layers.
const LAYERS: [&str; 3] = ["encoder.layer.", "encoder.layers.", "layers."];

/// The beginnings of names of tensors that embeddings do not need: what predicts words, a second sentence or a class.
const LEFT_OUT: [&str; 5] = ["pooler.", "cls.", "lm_head.", "classifier.", "embeddings.position_ids"];

/// The place of the tensor `name` in an encoder of `layers` layers. `None` for a name that is not known.
pub(super) fn place(family: &Family, name: &str, layers: u32, _: u32) -> Option<Place> {
    let own = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    if LEFT_OUT.iter().any(|start| own.starts_with(start)) {
        return Some(Place::LeftOut);
    }
    if let Some((_, ours)) = OUTSIDE.iter().find(|(theirs, _)| *theirs == own) {
        return Some(Place::Whole((*ours).to_owned()));
    }
    let (layer, rest) = LAYERS.iter().find_map(|start| own.strip_prefix(start))?.split_once('.')?;
    let number: u32 = layer.parse().ok().filter(|number: &u32| *number < layers && number.to_string() == layer)?;
    let (theirs, kind) = rest.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    let (_, ours) = family.names.iter().find(|(name, _)| *name == theirs)?;
    Some(Place::Whole(format!("blk.{number}.{ours}.{kind}")))
}

/// Writes the metadata that encoders have.
pub(super) fn describe(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    let epsilon = config.number(&["layer_norm_eps", "layer_norm_epsilon"])?;
    let absent = || config.wrong("layer_norm_eps", "a number".to_owned(), "no such key");
    entries.set("attention.layer_norm_epsilon", epsilon.ok_or_else(absent)?);
    entries.set("attention.causal", false);
    Ok(())
}

/// The same for models whose positions count from behind the padding token.
pub(super) fn describe_roberta(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    describe(entries, config)?;
    let skipped = POSITIONS_SKIPPED as u32;
    if let Some(padding) = config.count(&["pad_token_id"])?.filter(|padding| padding + 1 != skipped) {
        return Err(config.wrong("pad_token_id", (skipped - 1).to_string(), padding));
    }
    let Some(context) = entries.count("context_length").and_then(|context| context.checked_sub(skipped)) else {
        return Err(config.wrong("max_position_embeddings", format!("more than {skipped}"), "less"));
    };
    entries.set("context_length", context);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::families::ALL;
    use super::*;

    #[test]
    fn names_are_those_of_gguf_and_heads_for_other_ends_are_left_out() {
        let family = ALL.iter().find(|family| family.model_types.contains(&"bert")).unwrap();
        let whole = |name: &str| Some(Place::Whole(name.to_owned()));
        for prefix in ["", "bert."] {
            let of = |name: &str| place(family, &format!("{prefix}{name}"), 4, 0);
            assert_eq!(of("embeddings.LayerNorm.bias"), whole("token_embd_norm.bias"));
            assert_eq!(of("encoder.layer.3.attention.self.key.bias"), whole("blk.3.attn_k.bias"));
            assert_eq!(of("encoder.layer.0.output.LayerNorm.weight"), whole("blk.0.layer_output_norm.weight"));
            assert_eq!(of("pooler.dense.weight"), Some(Place::LeftOut));
            assert_eq!(of("encoder.layer.4.output.dense.weight"), None);
            assert_eq!(of("encoder.layer.01.output.dense.weight"), None);
            assert_eq!(of("encoder.mystery"), None);
        }
    }
}
