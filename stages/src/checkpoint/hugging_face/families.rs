//! The kinds of models that folders may have, a value each.

use super::describe;
use super::encoders;
use super::family::{ExpertLayout, Family, Fixed, LayerType, USUAL};
use super::gemma4;
use super::lfm2;
use super::llama4;

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
        describe: describe::deepseek_v2,
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
        describe: describe::deepseek_v3,
        ..USUAL
    },
    Family {
        model_types: &["gemma2"],
        architecture: "gemma2",
        norms_minus_one: true,
        names: NORMS_OF_TERMS,
        fixed: &[("hidden_activation", GELU), ("hidden_act", GELU)],
        layer_type: LayerType::Windows(|layer| layer.is_multiple_of(2)),
        describe: describe::gemma2,
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
        describe: describe::gemma3,
        ..USUAL
    },
    Family {
        model_types: &["glm4_moe"],
        architecture: "glm4moe",
        names: &[("post_attention_layernorm", "post_attention_norm")],
        fixed: &[SILU, ("norm_topk_prob", &[Fixed::Flag(true)]), ("n_group", &[Fixed::Number(1.0)])],
        describe: describe::glm4_moe,
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
    Family {
        model_types: &["granite"],
        architecture: "granite",
        reordered: true,
        describe: describe::granite,
        ..USUAL
    },
    Family {
        model_types: &["granitemoe", "granitemoeshared"],
        architecture: "granitemoe",
        reordered: true,
        describe: describe::granite,
        ..USUAL
    },
    Family {
        model_types: &["hunyuan_v1_moe"],
        architecture: "hunyuan-moe",
        fixed: &[SILU, ("use_qk_norm", &[Fixed::Flag(true)])],
        describe: describe::hunyuan_moe,
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
    Family {
        model_types: &["ministral3"],
        architecture: "mistral3",
        reordered: true,
        describe: describe::ministral3,
        ..USUAL
    },
    Family {
        model_types: &["gpt_oss"],
        architecture: "gpt-oss",
        names: &[("post_attention_layernorm", "post_attention_norm")],
        fixed: &[SILU, ("swiglu_alpha", &[Fixed::Number(1.702)]), ("swiglu_limit", &[Fixed::Number(7.0)])],
        experts: ExpertLayout::TransposedInTurns,
        layer_type: LayerType::Windows(|layer| layer.is_multiple_of(2)),
        describe: describe::gpt_oss,
        ..USUAL
    },
    Family {
        model_types: &["llama4_text", "llama4"],
        architecture: "llama4",
        fixed: &[SILU],
        experts: ExpertLayout::Transposed,
        layer_type: LayerType::Chunks(|layer| !(layer + 1).is_multiple_of(4)),
        describe: llama4::describe,
        ..USUAL
    },
    Family {
        model_types: &["bert"],
        architecture: "bert",
        fixed: encoders::BERT_FIXED,
        place: encoders::place,
        describe: encoders::describe,
        names: encoders::BERT_NAMES,
        ..USUAL
    },
    Family {
        model_types: &["roberta", "xlm-roberta", "camembert"],
        architecture: "bert",
        fixed: encoders::BERT_FIXED,
        place: encoders::place,
        skips_positions: true,
        describe: encoders::describe_roberta,
        names: encoders::BERT_NAMES,
        ..USUAL
    },
    Family {
        model_types: &["nomic_bert"],
        architecture: "nomic-bert",
        fixed: encoders::NOMIC_FIXED,
        place: encoders::place,
        describe: encoders::describe,
        names: encoders::NOMIC_NAMES,
        ..USUAL
    },
    Family {
        model_types: &["lfm2"],
        architecture: "lfm2",
        names: lfm2::NAMES,
        fixed: &[("conv_bias", &[Fixed::Flag(false)])],
        layer_type: LayerType::Listed,
        describe: lfm2::describe,
        ..USUAL
    },
    Family { model_types: &["olmo2"], architecture: "olmo2", names: NORMS_OF_TERMS, ..USUAL },
    Family { model_types: &["phi3"], architecture: "phi3", ..USUAL },
    Family {
        model_types: &["smollm3"],
        architecture: "smollm3",
        reordered: true,
        describe: describe::smollm3,
        ..USUAL
    },
];
