//! The names of tensors in folders, and those that GGUF has for them. Pure.

use super::family::Family;

/// The part that a stored tensor has in the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the tensor of this name.
    Whole(String),
    /// It is one expert's part of the tensor of this name.
    OfExpert(String, usize),
    /// It holds the rows of the first of these, then those of the second; for each expert, if it is of experts.
    Halves([String; 2]),
    /// The model of language has no use for it.
    LeftOut,
}

/// The beginnings of the names of layers, the longest first.
const PREFIXES: [&str; 4] = ["model.language_model.", "language_model.model.", "language_model.", "model."];

/// The beginnings of names of tensors for images and sounds.
const OTHER_SENSES: [&str; 8] = [
    "vision_tower.",
    "vision_model.",
    "visual.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.visual.",
    "model.multi_modal_projector.",
    "audio_tower.",
];

/// The ends of names of tensors that follow from the configuration, which older files have.
const COMPUTED: [&str; 2] = [".rotary_emb.inv_freq", ".masked_bias"];

/// The names of a layer's tensors, without `.weight` and `.bias`.
const USUAL: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("block_sparse_moe.router.layer", "ffn_gate_inp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("block_sparse_moe.output_linear", "ffn_down_exps"),
    ("mlp.switch_mlp.gate_proj", "ffn_gate_exps"),
    ("mlp.switch_mlp.up_proj", "ffn_up_exps"),
    ("mlp.switch_mlp.down_proj", "ffn_down_exps"),
    ("block_sparse_moe.switch_mlp.gate_proj", "ffn_gate_exps"),
    ("block_sparse_moe.switch_mlp.up_proj", "ffn_up_exps"),
    ("block_sparse_moe.switch_mlp.down_proj", "ffn_down_exps"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("feed_forward.gate_proj", "ffn_gate"),
    ("feed_forward.up_proj", "ffn_up"),
    ("feed_forward.down_proj", "ffn_down"),
    ("feed_forward.router", "ffn_gate_inp"),
    ("feed_forward.experts.down_proj", "ffn_down_exps"),
    ("feed_forward.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("feed_forward.shared_expert.up_proj", "ffn_up_shexp"),
    ("feed_forward.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
    ("experts.down_proj", "ffn_down_exps"),
    ("shared_mlp.output_linear", "ffn_down_shexp"),
    ("self_attn.query_layernorm", "attn_q_norm"),
    ("self_attn.key_layernorm", "attn_k_norm"),
    ("mlp.gate.wg", "ffn_gate_inp"),
    ("mlp.shared_mlp.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_mlp.up_proj", "ffn_up_shexp"),
    ("mlp.shared_mlp.down_proj", "ffn_down_shexp"),
    ("router.proj", "ffn_gate_inp"),
    ("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
    ("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    ("post_feedforward_layernorm_2", "post_ffw_norm_2"),
];

/// The names of tensors of which the end changes, too.
const WHOLE: [(&str, &str); 5] = [
    ("mlp.experts.down_proj_bias", "ffn_down_exps.bias"),
    ("self_attn.sinks", "attn_sinks.weight"),
    ("layer_scalar", "layer_output_scale.weight"),
    ("router.scale", "ffn_gate_inp.scale"),
    ("router.per_expert_scale", "ffn_down_exps.scale"),
];

/// The beginnings of names of tensors of all experts.
const OF_ALL_EXPERTS: [&str; 3] = ["mlp.experts.", "experts.", "feed_forward.experts."];

/// The names of one expert's matrices, and of those of all experts together.
const OF_EXPERT: [(&str, &str); 6] = [
    ("gate_proj.weight", "ffn_gate_exps.weight"),
    ("up_proj.weight", "ffn_up_exps.weight"),
    ("down_proj.weight", "ffn_down_exps.weight"),
    ("w1.weight", "ffn_gate_exps.weight"),
    ("w3.weight", "ffn_up_exps.weight"),
    ("w2.weight", "ffn_down_exps.weight"),
];

/// Names of tensors with both gates and the values that they are multiplied with, and the end of their two names.
const HALVES: [(&str, &str); 7] = [
    ("mlp.experts.gate_up_proj", "exps.weight"),
    ("mlp.experts.gate_up_proj.weight", "exps.weight"),
    ("mlp.experts.gate_up_proj_bias", "exps.bias"),
    ("feed_forward.experts.gate_up_proj", "exps.weight"),
    ("experts.gate_up_proj", "exps.weight"),
    ("block_sparse_moe.input_linear.weight", "exps.weight"),
    ("shared_mlp.input_linear.weight", "shexp.weight"),
];

/// The place of the tensor `name` in a model of `family` with `layers` layers, of which `further` more, which would
/// predict further tokens, are left out. `None` for a name that is not known.
pub(super) fn place(family: &Family, name: &str, layers: u32, further: u32) -> Option<Place> {
    if OTHER_SENSES.iter().any(|start| name.starts_with(start)) || COMPUTED.iter().any(|end| name.ends_with(end)) {
        return Some(Place::LeftOut);
    }
    let own = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let Some(of_layer) = own.strip_prefix("layers.") else {
        let whole = match own {
            "embed_tokens.weight" => "token_embd.weight",
            "norm.weight" => "output_norm.weight",
            "embedding_norm.weight" if family.architecture == "lfm2" => "output_norm.weight",
            "lm_head.weight" => "output.weight",
            _ => return None,
        };
        return Some(Place::Whole(whole.to_owned()));
    };
    let (layer, rest) = of_layer.split_once('.')?;
    let layer: u32 = layer.parse().ok().filter(|number: &u32| number.to_string() == layer)?;
    if (layers..layers.saturating_add(further)).contains(&layer) {
        return Some(Place::LeftOut);
    }
    place_in_layer(family, layer, rest)
}

fn place_in_layer(family: &Family, layer: u32, rest: &str) -> Option<Place> {
    let named = |suffix: &str| format!("blk.{layer}.{suffix}");
    if let Some((_, ours)) = WHOLE.iter().find(|(theirs, _)| *theirs == rest) {
        return Some(Place::Whole(named(ours)));
    }
    if rest.ends_with(".e_score_correction_bias") {
        return Some(Place::Whole(named("exp_probs_b.bias")));
    }
    if let Some((_, end)) = HALVES.iter().find(|(theirs, _)| *theirs == rest) {
        return Some(Place::Halves(["gate", "up"].map(|half| named(&format!("ffn_{half}_{end}")))));
    }
    if let Some((_, of_expert)) = rest.split_once(".experts.")
        && let Some((index, matrix)) = of_expert.split_once('.')
        && let Ok(expert) = index.parse::<usize>()
    {
        let (_, ours) = OF_EXPERT.iter().find(|(theirs, _)| *theirs == matrix)?;
        return (expert.to_string() == index).then(|| Place::OfExpert(named(ours), expert));
    }
    // Tensors of all experts have no ending.
    let (theirs, kind) = match rest.rsplit_once('.') {
        Some((theirs, kind @ ("weight" | "bias"))) => (theirs, kind),
        _ if OF_ALL_EXPERTS.iter().any(|start| rest.starts_with(start)) => (rest, "weight"),
        _ => return None,
    };
    let (_, ours) = family.names.iter().chain(USUAL).find(|(name, _)| *name == theirs)?;
    Some(Place::Whole(named(&format!("{ours}.{kind}"))))
}

#[cfg(test)]
mod tests {
    use super::super::families::ALL;
    use super::*;

    fn place_of(model_type: &str, name: &str) -> Option<Place> {
        let family = ALL.iter().find(|family| family.model_types.contains(&model_type)).unwrap();
        place(family, name, 4, 1)
    }

    fn whole(name: &str) -> Option<Place> {
        Some(Place::Whole(name.to_owned()))
    }

    #[test]
    fn names_are_those_of_gguf_whatever_stands_before_them() {
        for prefix in ["model.", "model.language_model.", "language_model.model."] {
            let found = place_of("llama", &format!("{prefix}layers.3.self_attn.q_proj.weight"));
            assert_eq!(found, whole("blk.3.attn_q.weight"), "{prefix}");
        }
        assert_eq!(place_of("qwen2", "model.layers.0.self_attn.k_proj.bias"), whole("blk.0.attn_k.bias"));
        assert_eq!(place_of("llama", "lm_head.weight"), whole("output.weight"));
        assert_eq!(
            place_of("gemma2", "model.layers.1.post_attention_layernorm.weight"),
            whole("blk.1.post_attention_norm.weight")
        );
        assert_eq!(place_of("llama", "model.layers.1.post_attention_layernorm.weight"), whole("blk.1.ffn_norm.weight"));
    }

    #[test]
    fn experts_have_numbers_of_one_spelling() {
        let expert =
            |name: &str| place_of("mixtral", &format!("model.layers.2.block_sparse_moe.experts.{name}.weight"));
        assert_eq!(expert("11.w3"), Some(Place::OfExpert("blk.2.ffn_up_exps.weight".to_owned(), 11)));
        assert_eq!((expert("011.w3"), expert("+1.w3"), expert("1.w4"), expert("x.w1")), (None, None, None, None));
        assert_eq!(
            place_of("qwen3_moe", "model.layers.2.mlp.experts.gate_up_proj"),
            Some(Place::Halves(["blk.2.ffn_gate_exps.weight", "blk.2.ffn_up_exps.weight"].map(str::to_owned)))
        );
        assert_eq!(place_of("qwen3_moe", "model.layers.2.mlp.experts.down_proj"), whole("blk.2.ffn_down_exps.weight"));
    }

    #[test]
    fn what_a_model_of_language_does_not_use_is_left_out_and_the_unknown_is_not() {
        for name in
            ["vision_tower.a.weight", "model.layers.4.eh_proj.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]
        {
            assert_eq!(place_of("deepseek_v3", name), Some(Place::LeftOut), "{name}");
        }
        for name in ["model.layers.0.mystery.weight", "mystery", "model.layers.01.mlp.up_proj.weight", "model.layers.0"]
        {
            assert_eq!(place_of("llama", name), None, "{name}");
        }
    }
}
