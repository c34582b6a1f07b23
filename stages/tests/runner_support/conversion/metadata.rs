//! The metadata of golden models, under the keys that llama.cpp's converter writes.

use serde_json::Value as Json;
use stages::gguf::GgufWriter;

use super::super::golden::Golden;

impl Golden {
    /// The architecture's name in GGUF files.
    pub fn architecture(&self) -> &str {
        match self.config["model_type"].as_str().expect("a model type") {
            "mistral" | "mixtral" => "llama",
            "xlm-roberta" => "bert",
            "nomic_bert" => "nomic-bert",
            "gemma3_text" => "gemma3",
            "gemma4_text" => "gemma4",
            "ernie4_5_moe" => "ernie4_5-moe",
            "granitemoeshared" => "granitemoe",
            "hunyuan_v1_moe" => "hunyuan-moe",
            "llama4_text" => "llama4",
            "qwen2_vl_text" => "qwen2vl",
            "qwen3_vl_text" => "qwen3vl",
            "qwen3_vl_moe_text" => "qwen3vlmoe",
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

    pub(super) fn metadata(&self) -> GgufWriter {
        let architecture = self.architecture();
        let own = |suffix: &str| format!("{architecture}.{suffix}");
        let heads = self.number("num_attention_heads");
        let head = self.config["head_dim"].as_u64().unwrap_or_else(|| u64::from(self.number("hidden_size") / heads));
        let rope = &self.config["rope_parameters"];
        let rope = rope.get("full_attention").unwrap_or(rope);
        let theta = rope["rope_theta"].as_f64().expect("a base") as f32;
        let epsilon =
            self.config["rms_norm_eps"].as_f64().or(self.config["norm_eps"].as_f64()).expect("an epsilon") as f32;
        let feed_forward = match self.tensors.get("model.layers.0.feed_forward.w1.weight") {
            // The configuration has a width that this is made of.
            Some((dims, _)) => dims[0] as u32,
            None => self.first(&["intermediate_size_mlp", "intermediate_size"]).expect("a width"),
        };
        let mut file = GgufWriter::new()
            .metadata("general.architecture", architecture)
            .metadata(&own("block_count"), self.number("num_hidden_layers"))
            .metadata(&own("context_length"), self.number("max_position_embeddings"))
            .metadata(&own("embedding_length"), self.number("hidden_size"))
            .metadata(&own("feed_forward_length"), feed_forward)
            .metadata(&own("attention.head_count"), heads)
            .metadata(&own("attention.layer_norm_rms_epsilon"), epsilon)
            .metadata(&own("rope.freq_base"), theta);
        let part = rope["partial_rotary_factor"].as_f64().unwrap_or(1.0);
        let rotated = (head as f64 * part).floor();
        file = match architecture {
            "deepseek2" => self.latent_metadata(file),
            "gemma4" => self.gemma4_metadata(file),
            "lfm2" => self.lfm2_metadata(file, head as u32),
            _ => file
                .metadata(&own("attention.head_count_kv"), self.number("num_key_value_heads"))
                .metadata(&own("attention.key_length"), head as u32)
                .metadata(&own("attention.value_length"), head as u32)
                .metadata(&own("rope.dimension_count"), rotated as u32),
        };
        if let Some(window) = self.first(&["sliding_window", "attention_chunk_size"]).filter(|window| *window > 0) {
            file = file.metadata(&own("attention.sliding_window"), window);
        }
        if let Some(sections) = rope["mrope_section"].as_array() {
            let sections: Vec<i32> =
                sections.iter().map(|section| section.as_i64().expect("a number") as i32).collect();
            file = file.metadata(&own("rope.dimension_sections"), &sections[..]);
        }
        if rope["rope_type"] == "linear" {
            let factor = rope["factor"].as_f64().expect("a factor") as f32;
            file = file.metadata(&own("rope.scaling.type"), "linear").metadata(&own("rope.scaling.factor"), factor);
        }
        if rope["rope_type"] == "longrope" {
            let original = rope["original_max_position_embeddings"].as_u64().expect("a length") as u32;
            let longer = f64::from(self.number("max_position_embeddings")) / f64::from(original);
            let magnitude = if longer > 1.0 { (1.0 + longer.ln() / f64::from(original).ln()).sqrt() } else { 1.0 };
            let magnitude = rope["attention_factor"].as_f64().unwrap_or(magnitude) as f32;
            file = file
                .metadata(&own("rope.scaling.original_context_length"), original)
                .metadata(&own("rope.scaling.attn_factor"), magnitude);
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
            ("attention.temperature_scale", "attn_scale"),
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

    fn lfm2_metadata(&self, file: GgufWriter, head: u32) -> GgufWriter {
        let types = self.config["layer_types"].as_array().expect("types of layers");
        let heads = |kind: &Json| if kind == "conv" { 0 } else { self.number("num_key_value_heads") as i32 };
        let kv_heads: Vec<i32> = types.iter().map(heads).collect();
        file.metadata("lfm2.attention.head_count_kv", &kv_heads[..])
            .metadata("lfm2.attention.key_length", head)
            .metadata("lfm2.attention.value_length", head)
            .metadata("lfm2.shortconv.l_cache", self.number("conv_L_cache"))
    }

    fn expert_metadata(&self, mut file: GgufWriter) -> GgufWriter {
        let architecture = self.architecture();
        let own = |suffix: &str| format!("{architecture}.{suffix}");
        let counts = ["num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"];
        let Some(count) = self.first(&counts) else { return file };
        let chosen = self.first(&["num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k"]).expect("a number");
        file = file.metadata(&own("expert_count"), count).metadata(&own("expert_used_count"), chosen);
        // In these families, the plain width is that of an expert.
        if matches!(architecture, "llama4" | "hunyuan-moe") {
            file = file.metadata(&own("expert_feed_forward_length"), self.number("intermediate_size"));
        }
        if architecture == "hunyuan-moe" {
            file = file.metadata(&own("expert_shared_feed_forward_length"), self.number("intermediate_size"));
        }
        let numbers = [
            ("expert_feed_forward_length", "moe_intermediate_size"),
            ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
            ("expert_shared_feed_forward_length", "shared_intermediate_size"),
            ("expert_shared_count", "n_shared_experts"),
            ("expert_shared_count", "moe_num_shared_experts"),
            ("leading_dense_block_count", "moe_layer_start_index"),
            ("interleave_moe_layer_step", "moe_layer_interval"),
            ("interleave_moe_layer_step", "interleave_moe_layer_step"),
            ("attention.temperature_length", "floor_scale"),
            ("leading_dense_block_count", "first_k_dense_replace"),
            ("expert_group_count", "n_group"),
            ("expert_group_used_count", "topk_group"),
        ];
        for (ours, theirs) in numbers {
            if let Some(number) = self.first(&[theirs]) {
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

    /// The first of these numbers that the configuration has.
    fn first(&self, keys: &[&str]) -> Option<u32> {
        keys.iter().find_map(|key| self.config[*key].as_u64()).map(|number| number as u32)
    }

    fn gemma4_metadata(&self, file: GgufWriter) -> GgufWriter {
        let layers = self.number("num_hidden_layers");
        let types = self.config["layer_types"].as_array().expect("types of layers");
        let in_window: Vec<bool> = types.iter().map(|name| name == "sliding_attention").collect();
        let number = |layer: u32, key: &str| {
            let own = &self.config["per_layer_config"][layer.to_string()][key];
            own.as_u64().map_or_else(|| self.number(key), |number| number as u32)
        };
        let kv_heads: Vec<u32> = (0..layers).map(|layer| number(layer, "num_key_value_heads")).collect();
        let (global, head) = (number(self.last_global(), "head_dim"), self.number("head_dim"));
        file.metadata("gemma4.attention.head_count_kv", &kv_heads[..])
            .metadata("gemma4.attention.sliding_window_pattern", &in_window[..])
            .metadata("gemma4.attention.key_length", global)
            .metadata("gemma4.attention.value_length", global)
            .metadata("gemma4.attention.key_length_swa", head)
            .metadata("gemma4.attention.value_length_swa", head)
            .metadata("gemma4.rope.dimension_count", global)
            .metadata("gemma4.rope.dimension_count_swa", head)
            .metadata("gemma4.attention.shared_kv_layers", 0_u32)
            .metadata("gemma4.embedding_length_per_layer_input", 0_u32)
    }

    /// The last layer, which sees all tokens in Gemma 4.
    fn last_global(&self) -> u32 {
        self.number("num_hidden_layers") - 1
    }

    /// The divisors of RoPE frequencies by the names of their tensors.
    pub(super) fn factor_tensors(&self) -> Vec<(&'static str, Vec<f32>)> {
        let rope = &self.config["rope_parameters"];
        let list = |key: &str| serde_json::from_value(rope[key].clone()).expect("factors");
        if rope["rope_type"] == "longrope" {
            return vec![
                ("rope_factors_long.weight", list("long_factor")),
                ("rope_factors_short.weight", list("short_factor")),
            ];
        }
        if self.architecture() == "gemma4" {
            let layer = &self.config["per_layer_config"][self.last_global().to_string()];
            let pairs = layer["head_dim"].as_u64().expect("a width") as usize / 2;
            let part = rope["full_attention"]["partial_rotary_factor"].as_f64().expect("a part");
            let rotated = (pairs as f64 * part) as usize;
            return vec![(
                "rope_freqs.weight",
                (0..pairs).map(|pair| if pair < rotated { 1.0 } else { 1e30 }).collect(),
            )];
        }
        self.rope_factors().map(|factors| ("rope_freqs.weight", factors)).into_iter().collect()
    }
}
