//! The names of golden models' tensors in GGUF files.

use super::super::golden::Golden;

impl Golden {
    /// The name of a tensor that is no expert's.
    pub(super) fn gguf_name(&self, name: &str) -> String {
        let renamed = match name {
            "model.embed_tokens.weight" => return "token_embd.weight".to_owned(),
            "model.norm.weight" => return "output_norm.weight".to_owned(),
            // The converter calls the last norm by the name of the embedding's.
            "model.embedding_norm.weight" => return "token_embd_norm.weight".to_owned(),
            "lm_head.weight" => return "output.weight".to_owned(),
            layer => layer.strip_prefix("model.layers.").expect("a layer's tensor"),
        };
        let (layer, rest) = renamed.split_once('.').expect("a layer number");
        if rest == "self_attn.sinks" {
            return format!("blk.{layer}.attn_sinks.weight");
        }
        if rest.ends_with(".e_score_correction_bias") {
            return format!("blk.{layer}.exp_probs_b.bias");
        }
        if let Some((_, whole)) = WHOLE_NAMES.iter().find(|(name, _)| *name == rest) {
            return format!("blk.{layer}.{whole}");
        }
        let (theirs, kind) = rest.rsplit_once('.').expect("weight or bias");
        let norms_of_terms = matches!(self.architecture(), "gemma2" | "gemma3" | "gemma4" | "olmo2");
        let names: &[_] = match self.architecture() {
            _ if norms_of_terms => &NORMS_OF_TERMS,
            "glm4moe" | "gpt-oss" => &NORMS_OF_TERMS[..1],
            "glm4" => &NORMS_OF_GLM4,
            _ => &[],
        };
        let ours = names.iter().chain(NAMES).find(|(name, _)| *name == theirs);
        format!("blk.{layer}.{}.{kind}", ours.unwrap_or_else(|| panic!("{theirs} is known")).1)
    }
}

/// Names in families that normalise what layers add.
const NORMS_OF_TERMS: [(&str, &str); 3] = [
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// Names in GLM-4, which normalises what layers add by other names.
const NORMS_OF_GLM4: [(&str, &str); 2] =
    [("post_self_attn_layernorm", "post_attention_norm"), ("post_mlp_layernorm", "post_ffw_norm")];

/// Names of which the end changes, too.
const WHOLE_NAMES: [(&str, &str); 3] = [
    ("layer_scalar", "layer_output_scale.weight"),
    ("router.scale", "ffn_gate_inp.scale"),
    ("router.per_expert_scale", "ffn_down_exps.scale"),
];

const NAMES: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("mlp.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.router", "ffn_gate_inp"),
    ("self_attn.query_layernorm", "attn_q_norm"),
    ("self_attn.key_layernorm", "attn_k_norm"),
    ("mlp.gate.wg", "ffn_gate_inp"),
    ("mlp.shared_mlp.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_mlp.up_proj", "ffn_up_shexp"),
    ("mlp.shared_mlp.down_proj", "ffn_down_shexp"),
    ("block_sparse_moe.router.layer", "ffn_gate_inp"),
    ("shared_mlp.output_linear", "ffn_down_shexp"),
    ("feed_forward.router", "ffn_gate_inp"),
    ("feed_forward.gate_proj", "ffn_gate"),
    ("feed_forward.up_proj", "ffn_up"),
    ("feed_forward.down_proj", "ffn_down"),
    ("feed_forward.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("feed_forward.shared_expert.up_proj", "ffn_up_shexp"),
    ("feed_forward.shared_expert.down_proj", "ffn_down_shexp"),
    ("router.proj", "ffn_gate_inp"),
    ("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
    ("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    ("post_feedforward_layernorm_2", "post_ffw_norm_2"),
    ("operator_norm", "attn_norm"),
    ("ffn_norm", "ffn_norm"),
    ("self_attn.q_layernorm", "attn_q_norm"),
    ("self_attn.k_layernorm", "attn_k_norm"),
    ("self_attn.out_proj", "attn_output"),
    ("conv.in_proj", "shortconv.in_proj"),
    ("conv.conv", "shortconv.conv"),
    ("conv.out_proj", "shortconv.out_proj"),
    ("feed_forward.w1", "ffn_gate"),
    ("feed_forward.w2", "ffn_down"),
    ("feed_forward.w3", "ffn_up"),
];
