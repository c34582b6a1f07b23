//! The kinds of models that folders may have, a value each.

use super::config::Config;
use super::family::{Family, Fixed, LayerType, USUAL};
use super::gemma4;
use super::metadata::Entries;
use super::rope::RopeParameters;
use crate::checkpoint::OpenError;

/// Kinds that are refused, and why.
pub(super) const REFUSED: [(&str, &str); 3] = [
    ("gpt_oss", "whose experts lie transposed or in blocks of another layout: expected a GGUF file of it"),
    ("llama4", "whose experts lie transposed: expected a GGUF file of it"),
    ("llama4_text", "whose experts lie transposed: expected a GGUF file of it"),
];

const SILU: (&str, &[Fixed]) = ("hidden_act", &[Fixed::Text("silu"), Fixed::Text("swish")]);
const GELU: &[Fixed] = &[Fixed::Text("gelu_pytorch_tanh")];

/// Names of tensors in models that normalise what layers add.
const NORMS_OF_TERMS: &[(&str, &str)] = &[
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// Names of tensors in GLM-4, which normalises what layers add by other names.
const NORMS_OF_GLM4: &[(&str, &str)] =
    &[("post_self_attn_layernorm", "post_attention_norm"), ("post_mlp_layernorm", "post_ffw_norm")];

/// All kinds.
pub(super) const ALL: &[Family] = &[
    Family { model_types: &["llama", "mistral", "mixtral"], architecture: "llama", reordered: true, ..USUAL },
    Family { model_types: &["qwen2"], architecture: "qwen2", ..USUAL },
    Family { model_types: &["qwen3"], architecture: "qwen3", ..USUAL },
    Family {
        model_types: &["qwen2_moe"],
        architecture: "qwen2moe",
        fixed: &[
            SILU,
            ("norm_topk_prob", &[Fixed::Flag(false)]),
            ("decoder_sparse_step", &[Fixed::Number(1.0)]),
            ("mlp_only_layers", &[Fixed::EmptyList]),
        ],
        ..USUAL
    },
    Family {
        model_types: &["qwen3_moe"],
        architecture: "qwen3moe",
        fixed: &[
            SILU,
            ("norm_topk_prob", &[Fixed::Flag(true)]),
            ("decoder_sparse_step", &[Fixed::Number(1.0)]),
            ("mlp_only_layers", &[Fixed::EmptyList]),
        ],
        ..USUAL
    },
    Family {
        model_types: &["deepseek_v2"],
        architecture: "deepseek2",
        fixed: &[
            SILU,
            ("norm_topk_prob", &[Fixed::Flag(false)]),
            ("moe_layer_freq", &[Fixed::Number(1.0)]),
            ("scoring_func", &[Fixed::Text("softmax")]),
            ("topk_method", &[Fixed::Text("greedy"), Fixed::Text("group_limited_greedy")]),
        ],
        describe: deepseek_v2,
        ..USUAL
    },
    Family {
        model_types: &["deepseek_v3", "kimi_k2"],
        architecture: "deepseek2",
        fixed: &[
            SILU,
            ("rope_interleave", &[Fixed::Flag(true)]),
            ("moe_layer_freq", &[Fixed::Number(1.0)]),
            ("scoring_func", &[Fixed::Text("sigmoid")]),
            ("topk_method", &[Fixed::Text("noaux_tc")]),
        ],
        describe: deepseek_v3,
        ..USUAL
    },
    Family {
        model_types: &["gemma2"],
        architecture: "gemma2",
        norms_minus_one: true,
        names: NORMS_OF_TERMS,
        fixed: &[("hidden_activation", GELU), ("hidden_act", GELU)],
        layer_type: LayerType::Windows(|layer| layer.is_multiple_of(2)),
        describe: gemma2,
        ..USUAL
    },
    Family {
        model_types: &["gemma3_text", "gemma3"],
        architecture: "gemma3",
        norms_minus_one: true,
        names: NORMS_OF_TERMS,
        fixed: &[
            ("hidden_activation", GELU),
            ("sliding_window_pattern", &[Fixed::Number(6.0)]),
            ("_sliding_window_pattern", &[Fixed::Number(6.0)]),
            ("use_bidirectional_attention", &[Fixed::Flag(false)]),
        ],
        layer_type: LayerType::Windows(|layer| !(layer + 1).is_multiple_of(6)),
        describe: gemma3,
        ..USUAL
    },
    Family {
        model_types: &["glm4_moe"],
        architecture: "glm4moe",
        names: &[("post_attention_layernorm", "post_attention_norm")],
        fixed: &[SILU, ("norm_topk_prob", &[Fixed::Flag(true)]), ("n_group", &[Fixed::Number(1.0)])],
        describe: glm4_moe,
        ..USUAL
    },
    Family {
        model_types: &["ernie4_5_moe"],
        architecture: "ernie4_5-moe",
        fixed: &[SILU, ("use_bias", &[Fixed::Flag(false)])],
        ..USUAL
    },
    Family {
        model_types: &["gemma4_text", "gemma4"],
        architecture: "gemma4",
        names: NORMS_OF_TERMS,
        fixed: &[
            ("hidden_activation", GELU),
            ("use_double_wide_mlp", &[Fixed::Flag(false)]),
            ("use_bidirectional_attention", &[Fixed::Flag(false)]),
        ],
        layer_type: LayerType::Listed,
        describe: gemma4::describe,
        ..USUAL
    },
    Family { model_types: &["glm4"], architecture: "glm4", names: NORMS_OF_GLM4, ..USUAL },
    Family { model_types: &["granite"], architecture: "granite", reordered: true, describe: granite, ..USUAL },
    Family {
        model_types: &["granitemoe", "granitemoeshared"],
        architecture: "granitemoe",
        reordered: true,
        describe: granite,
        ..USUAL
    },
    Family {
        model_types: &["hunyuan_v1_moe"],
        architecture: "hunyuan-moe",
        fixed: &[SILU, ("use_qk_norm", &[Fixed::Flag(true)])],
        describe: hunyuan_moe,
        ..USUAL
    },
    Family {
        model_types: &["qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"],
        architecture: "qwen2vl",
        ..USUAL
    },
    Family { model_types: &["qwen3_vl", "qwen3_vl_text"], architecture: "qwen3vl", ..USUAL },
    Family {
        model_types: &["qwen3_vl_moe", "qwen3_vl_moe_text"],
        architecture: "qwen3vlmoe",
        fixed: &[
            SILU,
            ("norm_topk_prob", &[Fixed::Flag(true)]),
            ("decoder_sparse_step", &[Fixed::Number(1.0)]),
            ("mlp_only_layers", &[Fixed::EmptyList]),
        ],
        ..USUAL
    },
    Family {
        model_types: &["minimax_m2"],
        architecture: "minimax-m2",
        fixed: &[SILU, ("scoring_func", &[Fixed::Text("sigmoid")]), ("qk_norm_type", &[Fixed::Text("per_layer")])],
        ..USUAL
    },
    Family { model_types: &["ministral3"], architecture: "mistral3", reordered: true, describe: ministral3, ..USUAL },
    Family { model_types: &["olmo2"], architecture: "olmo2", names: NORMS_OF_TERMS, ..USUAL },
    Family { model_types: &["phi3"], architecture: "phi3", ..USUAL },
    Family { model_types: &["smollm3"], architecture: "smollm3", reordered: true, describe: smollm3, ..USUAL },
];

fn deepseek_v2(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.latent_attention(config)?;
    // Choosing greedily, a model has no groups, whatever it says of them.
    if config.text("topk_method")? == Some("group_limited_greedy") {
        entries.groups(config)?;
    }
    Ok(())
}

fn deepseek_v3(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.latent_attention(config)?;
    entries.groups(config)?;
    entries.set("expert_gating_func", SIGMOID);
    Ok(())
}

/// GGUF's number of the sigmoid among the scores of routers.
const SIGMOID: u32 = 2;

fn gemma2(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    /// Layers of the model with 27 billion parameters.
    const LAYERS_27B: u32 = 46;
    entries.grouped_attention(config)?;
    check_query_scale(config, LAYERS_27B)
}

fn gemma3(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
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

fn glm4_moe(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    entries.set("expert_gating_func", SIGMOID);
    Ok(())
}

fn granite(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
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

fn hunyuan_moe(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
    // The plain width is that of an expert and of the network beside them.
    let width = config.required(&["intermediate_size"])?;
    entries.set("expert_feed_forward_length", width);
    entries.set("expert_shared_feed_forward_length", width);
    Ok(())
}

fn ministral3(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
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

fn smollm3(entries: &mut Entries, config: &Config) -> Result<(), OpenError> {
    entries.grouped_attention(config)?;
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
