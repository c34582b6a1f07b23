//! Golden models as GGUF files with 32-bit weights, with the keys, names and orders that llama.cpp's converter writes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use stages::format::Format;
use stages::gguf::GgufWriter;

use super::golden::Golden;

/// Tensors by their names in a GGUF file, dimensions in the order of safetensors: the row's length last.
type Tensors = BTreeMap<String, (Vec<u64>, Vec<f32>)>;

impl Golden {
    /// Writes the model as a GGUF file with 32-bit weights.
    pub fn write_gguf(&self, path: &Path) {
        let mut file = self.metadata();
        for (name, (dims, values)) in self.gguf_tensors() {
            let dims: Vec<u64> = dims.iter().rev().copied().collect();
            file = file.tensor(&name, &dims, Format::F32, bytes_of(&values)).expect("dimensions fit");
        }
        if let Some(factors) = self.rope_factors() {
            let dims = [factors.len() as u64];
            file = file.tensor("rope_freqs.weight", &dims, Format::F32, bytes_of(&factors)).expect("dimensions fit");
        }
        file.write_file(path).expect("the file can be written");
    }

    /// The architecture's name in GGUF files.
    pub fn architecture(&self) -> &str {
        match self.config["model_type"].as_str().expect("a model type") {
            "mistral" | "mixtral" => "llama",
            "gemma3_text" => "gemma3",
            "glm4_moe" => "glm4moe",
            "gpt_oss" => "gpt-oss",
            "ministral3" => "mistral3",
            "minimax_m2" => "minimax-m2",
            "qwen2_moe" => "qwen2moe",
            "qwen3_moe" => "qwen3moe",
            "deepseek_v2" | "deepseek_v3" => "deepseek2",
            same => same,
        }
    }

    fn metadata(&self) -> GgufWriter {
        let architecture = self.architecture();
        let own = |suffix: &str| format!("{architecture}.{suffix}");
        let heads = self.number("num_attention_heads");
        let head = self.config["head_dim"].as_u64().unwrap_or_else(|| u64::from(self.number("hidden_size") / heads));
        let rope = &self.config["rope_parameters"];
        let theta = rope.get("full_attention").unwrap_or(rope)["rope_theta"].as_f64().expect("a base") as f32;
        let epsilon = self.config["rms_norm_eps"].as_f64().expect("an epsilon") as f32;
        let mut file = GgufWriter::new()
            .metadata("general.architecture", architecture)
            .metadata(&own("block_count"), self.number("num_hidden_layers"))
            .metadata(&own("context_length"), self.number("max_position_embeddings"))
            .metadata(&own("embedding_length"), self.number("hidden_size"))
            .metadata(&own("feed_forward_length"), self.number("intermediate_size"))
            .metadata(&own("attention.head_count"), heads)
            .metadata(&own("attention.layer_norm_rms_epsilon"), epsilon)
            .metadata(&own("rope.freq_base"), theta);
        let part = rope["partial_rotary_factor"].as_f64().unwrap_or(1.0);
        let rotated = (head as f64 * part).round();
        file = match architecture {
            "deepseek2" => self.latent_metadata(file),
            _ => file
                .metadata(&own("attention.head_count_kv"), self.number("num_key_value_heads"))
                .metadata(&own("attention.key_length"), head as u32)
                .metadata(&own("attention.value_length"), head as u32)
                .metadata(&own("rope.dimension_count"), rotated as u32),
        };
        if let Some(window) = self.config["sliding_window"].as_u64().filter(|window| *window > 0) {
            file = file.metadata(&own("attention.sliding_window"), window as u32);
        }
        if rope["rope_type"] == "yarn" {
            let number = |key: &str| rope[key].as_f64().expect("a number") as f32;
            file = file
                .metadata(&own("rope.scaling.type"), "yarn")
                .metadata(&own("rope.scaling.factor"), number("factor"))
                .metadata(
                    &own("rope.scaling.original_context_length"),
                    number("original_max_position_embeddings") as u32,
                )
                .metadata(&own("rope.scaling.yarn_beta_fast"), number("beta_fast"))
                .metadata(&own("rope.scaling.yarn_beta_slow"), number("beta_slow"));
            let ministral = [
                ("rope.scaling.yarn_log_multiplier", "mscale_all_dim"),
                ("attention.temperature_scale", "llama_4_scaling_beta"),
            ];
            for (ours, theirs) in ministral.into_iter().filter(|(_, theirs)| rope.get(theirs).is_some()) {
                file = file.metadata(&own(ours), number(theirs));
            }
        }
        let factors = [
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
            ("attention.scale", "attention_multiplier"),
            ("embedding_scale", "embedding_multiplier"),
            ("residual_scale", "residual_multiplier"),
            ("logit_scale", "logits_scaling"),
        ];
        for (ours, theirs) in factors {
            if let Some(factor) = self.config[theirs].as_f64() {
                file = file.metadata(&own(ours), factor as f32);
            }
        }
        self.expert_metadata(file)
    }

    fn latent_metadata(&self, file: GgufWriter) -> GgufWriter {
        let rotated = self.number("qk_rope_head_dim");
        let file = match self.config["q_lora_rank"].as_u64() {
            Some(rank) => file.metadata("deepseek2.attention.q_lora_rank", rank as u32),
            None => file,
        };
        file.metadata("deepseek2.attention.kv_lora_rank", self.number("kv_lora_rank"))
            .metadata("deepseek2.attention.key_length", self.number("qk_nope_head_dim") + rotated)
            .metadata("deepseek2.attention.value_length", self.number("v_head_dim"))
            .metadata("deepseek2.rope.dimension_count", rotated)
    }

    fn expert_metadata(&self, mut file: GgufWriter) -> GgufWriter {
        let architecture = self.architecture();
        let own = |suffix: &str| format!("{architecture}.{suffix}");
        let first = |keys: &[&str]| keys.iter().find_map(|key| self.config[*key].as_u64()).map(|number| number as u32);
        let Some(count) = first(&["num_local_experts", "num_experts", "n_routed_experts"]) else { return file };
        file = file
            .metadata(&own("expert_count"), count)
            .metadata(&own("expert_used_count"), self.number("num_experts_per_tok"));
        let numbers = [
            ("expert_feed_forward_length", "moe_intermediate_size"),
            ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
            ("expert_shared_count", "n_shared_experts"),
            ("leading_dense_block_count", "first_k_dense_replace"),
            ("expert_group_count", "n_group"),
            ("expert_group_used_count", "topk_group"),
        ];
        for (ours, theirs) in numbers {
            if let Some(number) = first(&[theirs]) {
                file = file.metadata(&own(ours), number);
            }
        }
        if let Some(scale) = self.config["routed_scaling_factor"].as_f64() {
            file = file
                .metadata(&own("expert_weights_scale"), scale as f32)
                .metadata(&own("expert_weights_norm"), self.config["norm_topk_prob"] == Json::Bool(true));
        }
        if matches!(self.config["model_type"].as_str(), Some("deepseek_v3" | "glm4_moe")) {
            file = file.metadata(&own("expert_gating_func"), 2_u32);
        }
        file
    }

    fn gguf_tensors(&self) -> Tensors {
        let mut found = Tensors::new();
        for (name, (dims, values)) in &self.tensors {
            if let Some((layer, kind)) = name.strip_suffix("_bias").unwrap_or(name).split_once(".mlp.experts.")
                && matches!(kind, "gate_up_proj" | "down_proj")
            {
                let layer = layer.strip_prefix("model.layers.").expect("a layer's tensor");
                found.extend(gpt_oss_experts(layer, kind, name.ends_with("_bias"), dims, values));
                continue;
            }
            let heads = |key: &str| self.number(key) as usize;
            // Gemma's norms are stored without the one that they add.
            let plus_one = self.architecture().starts_with("gemma") && name.ends_with("norm.weight");
            let values = match self.architecture() {
                _ if plus_one => values.iter().map(|value| value + 1.0).collect(),
                "llama" | "granite" | "mistral3" | "smollm3" if name.ends_with("q_proj.weight") => {
                    interleave(values, dims, heads("num_attention_heads"))
                }
                "llama" | "granite" | "mistral3" | "smollm3" if name.ends_with("k_proj.weight") => {
                    interleave(values, dims, heads("num_key_value_heads"))
                }
                _ => values.clone(),
            };
            match expert(name) {
                // Names sort by text, so each expert is put into its place.
                Some((layer, index, suffix)) => {
                    let count = self.experts_of(&layer);
                    let whole = [count as u64, dims[0], dims[1]];
                    let all = found
                        .entry(format!("blk.{layer}.{suffix}"))
                        .or_insert_with(|| (whole.to_vec(), vec![0.0; count * values.len()]));
                    all.1[index * values.len()..][..values.len()].copy_from_slice(&values);
                }
                None => drop(found.insert(self.gguf_name(name), (squeezed(dims), values))),
            }
        }
        found
    }

    /// Number of experts in a layer.
    fn experts_of(&self, layer: &str) -> usize {
        let prefix = format!("model.layers.{layer}.");
        let own = self.tensors.keys().filter(|name| name.starts_with(&prefix));
        own.filter_map(|name| expert(name)).map(|(_, index, _)| index + 1).max().expect("there are experts")
    }
}

/// The layer, the number and the tensor's suffix of one expert's matrix.
fn expert(name: &str) -> Option<(String, usize, &'static str)> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, rest) = rest.split_once(".experts.")?;
    let (index, matrix) = rest.split_once('.')?;
    let suffix = match matrix {
        "gate_proj.weight" | "w1.weight" => "ffn_gate_exps.weight",
        "up_proj.weight" | "w3.weight" => "ffn_up_exps.weight",
        "down_proj.weight" | "w2.weight" => "ffn_down_exps.weight",
        other => panic!("{other} is known"),
    };
    Some((layer.to_owned(), index.parse().ok()?, suffix))
}

/// gpt-oss's experts, which are stored with their inputs as rows, and gates and ups in turns.
fn gpt_oss_experts(layer: &str, kind: &str, bias: bool, dims: &[u64], values: &[f32]) -> Tensors {
    let (suffix, count, width) =
        (if bias { "bias" } else { "weight" }, dims[0] as usize, dims[dims.len() - 1] as usize);
    let inputs = if bias { 1 } else { dims[1] as usize };
    let (names, step): (&[&str], usize) =
        if kind == "gate_up_proj" { (&["ffn_gate_exps", "ffn_up_exps"], 2) } else { (&["ffn_down_exps"], 1) };
    let tensor = |(offset, name): (usize, &&str)| {
        let value = |expert: usize, output: usize, input: usize| {
            values[(expert * inputs + input) * width + output * step + offset]
        };
        let outputs = width / step;
        let each = (0..count).flat_map(|expert| (0..outputs).map(move |output| (expert, output)));
        let stored = each.flat_map(|(expert, output)| (0..inputs).map(move |input| value(expert, output, input)));
        let dims = [count, outputs, inputs].map(|dim| dim as u64);
        let dims = if bias { dims[..2].to_vec() } else { dims.to_vec() };
        (format!("blk.{layer}.{name}.{suffix}"), (dims, stored.collect()))
    };
    names.iter().enumerate().map(tensor).collect()
}

/// Dimensions without those of one, of which a vector is left at least.
fn squeezed(dims: &[u64]) -> Vec<u64> {
    let kept: Vec<u64> = dims.iter().copied().filter(|dim| *dim > 1).collect();
    if kept.is_empty() { vec![1] } else { kept }
}

impl Golden {
    /// The name of a tensor that is no expert's.
    fn gguf_name(&self, name: &str) -> String {
        let renamed = match name {
            "model.embed_tokens.weight" => return "token_embd.weight".to_owned(),
            "model.norm.weight" => return "output_norm.weight".to_owned(),
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
        let (theirs, kind) = rest.rsplit_once('.').expect("weight or bias");
        let norms_of_terms = matches!(self.architecture(), "gemma2" | "gemma3" | "olmo2");
        let names: &[_] = match self.architecture() {
            _ if norms_of_terms => &NORMS_OF_TERMS,
            "glm4moe" | "gpt-oss" => &NORMS_OF_TERMS[..1],
            _ => &[],
        };
        let ours = names.iter().chain(&NAMES).find(|(name, _)| *name == theirs);
        format!("blk.{layer}.{}.{kind}", ours.unwrap_or_else(|| panic!("{theirs} is known")).1)
    }
}

/// Names in families that normalise what layers add.
const NORMS_OF_TERMS: [(&str, &str); 3] = [
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

const NAMES: [(&str, &str); 29] = [
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
];

/// Reorders each head's rows so that the two rows of a RoPE pair are neighbours, as converters do for llama.
fn interleave(values: &[f32], dims: &[u64], heads: usize) -> Vec<f32> {
    let (rows, cols) = (dims[0] as usize, dims[1] as usize);
    let half = rows / heads / 2;
    let row = |head: usize, pair: usize, side: usize| &values[((head * 2 + side) * half + pair) * cols..][..cols];
    let order = (0..heads).flat_map(|head| (0..half).flat_map(move |pair| (0..2).map(move |side| (head, pair, side))));
    order.flat_map(|(head, pair, side)| row(head, pair, side).iter().copied()).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
