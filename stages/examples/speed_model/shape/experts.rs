//! Mixtures of experts.

use super::attention::Attention;
use super::{Shape, Values};

/// Name, dimensions and values of a layer's tensors.
type Tensors = Vec<(&'static str, Vec<u32>, Values)>;

/// Four of its 48 layers: 1.4 GB of experts in 4 bits.
pub(super) fn qwen3_30b_a3b() -> Shape {
    let attention = Attention {
        hidden: 2048,
        heads: 32,
        kv_heads: 4,
        head: 128,
        norm_epsilon: 1e-6,
        rope_base: 1_000_000.0,
        normed: true,
        biased: false,
    };
    let mut shape = Shape::new("qwen3moe", 151_936, 2048, 4, 40_960);
    shape.untie(2048);
    attention.describe(&mut shape);
    shape.set("feed_forward_length", 6144_u32);
    sizes(&mut shape, 128, 8, 768);
    shape.layers(4, |_| {
        let mut tensors = attention.tensors();
        tensors.push(("ffn_norm.weight", vec![2048], Values::Ones));
        tensors.extend(experts(2048, 128, 768));
        tensors
    });
    shape
}

/// Four of its 24 layers: 1.7 GB of experts in MXFP4.
pub(super) fn gpt_oss_20b() -> Shape {
    let attention = Attention {
        hidden: 2880,
        heads: 64,
        kv_heads: 8,
        head: 64,
        norm_epsilon: 1e-5,
        rope_base: 150_000.0,
        normed: false,
        biased: true,
    };
    let mut shape = Shape::new("gpt-oss", 201_088, 2880, 4, 131_072);
    shape.untie(2880);
    attention.describe(&mut shape);
    shape.set("feed_forward_length", 2880_u32).set("attention.sliding_window", 128_u32);
    shape.set("rope.scaling.type", "yarn").set("rope.scaling.factor", 32.0_f32);
    shape.set("rope.scaling.original_context_length", 4096_u32);
    sizes(&mut shape, 32, 4, 2880);
    shape.layers(4, |_| {
        let mut tensors = attention.tensors();
        tensors.push(("attn_sinks.weight", vec![64], Values::Zeros));
        tensors.push(("post_attention_norm.weight", vec![2880], Values::Ones));
        tensors.extend(experts(2880, 32, 2880));
        tensors.push(("ffn_gate_inp.bias", vec![32], Values::Zeros));
        for name in ["ffn_gate_exps.bias", "ffn_up_exps.bias", "ffn_down_exps.bias"] {
            tensors.push((name, vec![2880, 32], Values::Zeros));
        }
        tensors
    });
    shape
}

/// All of its 27 layers, as llama.cpp knows models of this kind by their number: 9 GB in 4 bits.
pub(super) fn deepseek_v2_lite() -> Shape {
    let (layers, hidden, heads, rank, plain, rotated, value) = (27, 2048, 16, 512, 128, 64, 128);
    let mut shape = Shape::new("deepseek2", 102_400, hidden, layers, 163_840);
    shape.untie(hidden);
    shape
        .set("attention.head_count", heads)
        .set("attention.head_count_kv", 1_u32)
        .set("attention.layer_norm_rms_epsilon", 1e-6_f32)
        .set("attention.kv_lora_rank", rank)
        .set("attention.key_length", rank + rotated)
        .set("attention.value_length", rank)
        .set("attention.key_length_mla", plain + rotated)
        .set("attention.value_length_mla", value)
        .set("rope.dimension_count", rotated)
        .set("rope.freq_base", 10_000.0_f32)
        .set("feed_forward_length", 10_944_u32)
        .set("leading_dense_block_count", 1_u32)
        .set("expert_shared_count", 2_u32)
        .set("expert_weights_scale", 1.0_f32)
        .set("expert_gating_func", 1_u32);
    sizes(&mut shape, 64, 6, 1408);
    shape.layers(layers, |layer| {
        let mut tensors = vec![
            ("attn_norm.weight", vec![hidden], Values::Ones),
            ("attn_q.weight", vec![hidden, heads * (plain + rotated)], Values::Weights),
            ("attn_kv_a_mqa.weight", vec![hidden, rank + rotated], Values::Weights),
            ("attn_kv_a_norm.weight", vec![rank], Values::Ones),
            ("attn_k_b.weight", vec![plain, rank, heads], Values::Weights),
            ("attn_v_b.weight", vec![rank, value, heads], Values::Weights),
            ("attn_output.weight", vec![heads * value, hidden], Values::Weights),
            ("ffn_norm.weight", vec![hidden], Values::Ones),
        ];
        if layer == 0 {
            tensors.extend(network(["ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"], hidden, 10_944));
        } else {
            tensors.extend(experts(hidden, 64, 1408));
            let names = ["ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight"];
            tensors.extend(network(names, hidden, 2 * 1408));
        }
        tensors
    });
    shape
}

fn sizes(shape: &mut Shape, count: u32, chosen: u32, width: u32) {
    shape.set("expert_count", count).set("expert_used_count", chosen).set("expert_feed_forward_length", width);
}

/// The router and the three matrices of each expert.
fn experts(hidden: u32, count: u32, width: u32) -> Tensors {
    vec![
        ("ffn_gate_inp.weight", vec![hidden, count], Values::Floats),
        ("ffn_gate_exps.weight", vec![hidden, width, count], Values::Experts),
        ("ffn_up_exps.weight", vec![hidden, width, count], Values::Experts),
        ("ffn_down_exps.weight", vec![width, hidden, count], Values::Experts),
    ]
}

/// The three matrices of a gated network.
fn network([gate, up, down]: [&'static str; 3], hidden: u32, width: u32) -> Tensors {
    vec![
        (gate, vec![hidden, width], Values::Weights),
        (up, vec![hidden, width], Values::Weights),
        (down, vec![width, hidden], Values::Weights),
    ]
}
