//! The metadata of a configuration, with GGUF's keys.

use serde_json::{Map, Value as Json};

use super::config::Config;
use super::family::Family;
use super::rope::RopeParameters;
use crate::checkpoint::OpenError;
use crate::gguf::{Metadata, Value};

/// Metadata under an architecture's prefix.
pub(super) struct Entries {
    architecture: &'static str,
    metadata: Metadata,
}

/// Counts that any kind may have: their GGUF keys and those of configurations.
const COUNTS: [(&str, &[&str]); 11] = [
    ("context_length", &["max_position_embeddings"]),
    ("feed_forward_length", &["intermediate_size"]),
    ("attention.head_count", &["num_attention_heads"]),
    ("expert_count", &["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"]),
    ("expert_used_count", &["num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k"]),
    ("expert_feed_forward_length", &["moe_intermediate_size"]),
    ("expert_shared_feed_forward_length", &["shared_expert_intermediate_size", "shared_intermediate_size"]),
    ("expert_shared_count", &["n_shared_experts", "moe_num_shared_experts"]),
    ("leading_dense_block_count", &["first_k_dense_replace", "moe_layer_start_index"]),
    ("interleave_moe_layer_step", &["moe_layer_interval"]),
    ("rope.scaling.original_context_length", &["original_max_position_embeddings"]),
];

/// Numbers that any kind may have.
const NUMBERS: [(&str, &[&str]); 4] = [
    ("attention.layer_norm_rms_epsilon", &["rms_norm_eps"]),
    ("expert_weights_scale", &["routed_scaling_factor"]),
    ("attn_logit_softcapping", &["attn_logit_softcapping"]),
    ("final_logit_softcapping", &["final_logit_softcapping"]),
];

/// Sampling that authors recommend: the names of GGUF (under `general.sampling.`) and of `generation_config.json`.
const SAMPLING: [(&str, &str); 5] = [
    ("temp", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("penalty_repeat", "repetition_penalty"),
];

/// The metadata of a model of `family`.
pub(super) fn translate(config: &Config, family: &Family) -> Result<Metadata, OpenError> {
    let mut entries = Entries { architecture: family.architecture, metadata: Metadata::default() };
    entries.metadata.insert("general.architecture", family.architecture.into());
    entries.set("block_count", config.required(&["num_hidden_layers"])?);
    entries.set("embedding_length", config.required(&["hidden_size"])?);
    for (ours, theirs) in COUNTS {
        if let Some(count) = config.count(theirs)? {
            entries.set(ours, count);
        }
    }
    for (ours, theirs) in NUMBERS {
        if let Some(number) = config.number(theirs)? {
            entries.set(ours, number);
        }
    }
    if let Some(normalise) = config.flag("norm_topk_prob")?.filter(|_| config.get("routed_scaling_factor").is_some()) {
        entries.set("expert_weights_norm", normalise);
    }
    RopeParameters::of(config, "full_attention")?.describe(family.architecture, &mut entries)?;
    if family.reordered {
        entries.set("rope.halves", true);
    }
    (family.describe)(&mut entries, config)?;
    Ok(entries.metadata)
}

/// Writes the sampling that `generation`, a folder's `generation_config.json`, recommends. What it cannot mean is left
/// to the reader of the metadata, who reports it.
pub(super) fn recommended_sampling(generation: &Map<String, Json>, metadata: &mut Metadata) {
    for (ours, theirs) in SAMPLING {
        let value = match generation.get(theirs) {
            Some(Json::Number(number)) => match number.as_i64().and_then(|whole| i32::try_from(whole).ok()) {
                Some(whole) => Value::from(whole),
                None => Value::from(number.as_f64().unwrap_or(f64::NAN) as f32),
            },
            None | Some(Json::Null) => continue,
            Some(other) => Value::from(other.to_string()),
        };
        metadata.insert(&format!("general.sampling.{ours}"), value);
    }
}

// === impl Entries ===

impl Entries {
    /// Sets the key `suffix` under the architecture's prefix.
    pub(super) fn set(&mut self, suffix: &str, value: impl Into<Value>) {
        self.metadata.insert(&format!("{}.{suffix}", self.architecture), value.into());
    }

    /// The same for a key that is not set yet.
    pub(super) fn set_default(&mut self, suffix: &str, value: impl Into<Value>) {
        if self.metadata.get(&format!("{}.{suffix}", self.architecture)).is_none() {
            self.set(suffix, value);
        }
    }

    /// The count under the key `suffix`, if it is set.
    pub(super) fn count(&self, suffix: &str) -> Option<u32> {
        self.metadata.get_u32(&format!("{}.{suffix}", self.architecture)).ok().flatten()
    }

    /// The widths of grouped attention, its window, and the part of heads that is rotated.
    pub(super) fn grouped_attention(&mut self, config: &Config) -> Result<(), OpenError> {
        if let Some(heads) = config.count(&["num_key_value_heads"])? {
            self.set("attention.head_count_kv", heads);
        }
        if let Some(head) = config.count(&["head_dim"])? {
            self.set("attention.key_length", head);
            self.set("attention.value_length", head);
        }
        if let Some(rotated) = rotated(config)? {
            self.set("rope.dimension_count", rotated);
        }
        let window = config.count(&["sliding_window"])?.filter(|window| *window > 0);
        if let Some(window) = window.filter(|_| config.flag("use_sliding_window").ok().flatten() != Some(false)) {
            self.set("attention.sliding_window", window);
        }
        Ok(())
    }

    /// The widths of latent attention, and what YaRN does to its scores.
    pub(super) fn latent_attention(&mut self, config: &Config) -> Result<(), OpenError> {
        let rotated = config.required(&["qk_rope_head_dim"])?;
        let plain = config.required(&["qk_nope_head_dim"])?;
        let Some(key) = plain.checked_add(rotated) else {
            return Err(config.wrong("qk_nope_head_dim", "a sum below 2^32".to_owned(), plain));
        };
        if let Some(rank) = config.count(&["q_lora_rank"])? {
            self.set("attention.q_lora_rank", rank);
        }
        self.set("attention.kv_lora_rank", config.required(&["kv_lora_rank"])?);
        self.set("attention.key_length", key);
        self.set("attention.value_length", config.required(&["v_head_dim"])?);
        self.set("rope.dimension_count", rotated);
        let rope = RopeParameters::of(config, "full_attention")?;
        if rope.is_yarn() {
            let (mscale, all) = (rope.number("mscale")?, rope.number("mscale_all_dim")?);
            if mscale != all {
                let shown = |number: Option<f64>| number.map_or("none".to_owned(), |number| number.to_string());
                return Err(config.wrong("mscale", format!("mscale_all_dim, {}", shown(all)), shown(mscale)));
            }
            // GGUF has a tenth of it: the factor of the logarithm.
            self.set("rope.scaling.yarn_log_multiplier", (0.1 * all.unwrap_or(0.0)) as f32);
        }
        Ok(())
    }

    /// The groups that a row's experts come from.
    pub(super) fn groups(&mut self, config: &Config) -> Result<(), OpenError> {
        for (ours, theirs) in [("expert_group_count", "n_group"), ("expert_group_used_count", "topk_group")] {
            if let Some(count) = config.count(&[theirs])? {
                self.set(ours, count);
            }
        }
        Ok(())
    }
}

/// Number of a head's dimensions that are rotated, if it is a part of them.
fn rotated(config: &Config) -> Result<Option<u32>, OpenError> {
    if let Some(rotated) = config.count(&["rotary_dim"])? {
        return Ok(Some(rotated));
    }
    let own = RopeParameters::of(config, "full_attention")?.number("partial_rotary_factor")?;
    let part = match own {
        Some(part) => Some(part),
        None => config.number(&["partial_rotary_factor"])?.map(f64::from),
    };
    let Some(part) = part.filter(|part| *part != 1.0) else { return Ok(None) };
    let head = match config.count(&["head_dim"])? {
        Some(head) => head,
        None => config.required(&["hidden_size"])? / config.required(&["num_attention_heads"])?.max(1),
    };
    Ok(Some((f64::from(head) * part) as u32))
}
