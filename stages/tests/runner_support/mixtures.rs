//! GGUF files of random models with experts, and with latent attention.

use std::path::Path;

use stages::format::Format;
use stages::gguf::GgufWriter;

use stages::selftest::{Random, bytes_of, random_blocks};

pub const LAYERS: u32 = 3;
pub const HIDDEN: u32 = 256;
pub const VOCABULARY: u32 = 160;
pub const CONTEXT: u32 = 320;
/// Number of experts, those that a row chooses, and the values between an expert's matrices.
pub const EXPERTS: u32 = 16;
pub const CHOSEN: u32 = 3;
pub const WIDTH: u32 = 256;
/// Heads of latent attention, its compressed values, and the values of a head.
const HEADS: u32 = 4;
const RANK: u32 = 256;
const ROTATED: u32 = 32;
const PLAIN: u32 = 32;
const VALUE: u32 = 64;

/// The kind of a random model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixture {
    /// Grouped attention, experts in all layers.
    Qwen3,
    /// Latent attention with one tensor for keys and values, as in older files, a dense layer, experts and a network
    /// beside them.
    DeepSeekV2,
    /// Latent attention with compressed queries and a tensor each for keys and values, experts in groups.
    DeepSeekV3,
}

/// A file under construction.
struct Writer {
    file: GgufWriter,
    random: Random,
    format: Format,
}

impl Writer {
    fn matrix(&mut self, name: &str, dims: &[u32]) {
        let values = dims.iter().map(|dim| *dim as usize).product();
        // Rows that are no whole blocks are stored as in files of this format: in one that they fit.
        let fits = self.format.row_bytes(dims[0] as usize).is_some();
        let format = if fits { self.format } else { Format::Q8_0 };
        let bytes = random_blocks(&mut self.random, format, values, dims[0] as f32);
        self.tensor(name, dims, format, bytes);
    }

    fn floats(&mut self, name: &str, dims: &[u32], base: f32) {
        let count: u32 = dims.iter().product();
        let values: Vec<f32> = (0..count).map(|index| base + (index * 7 % 5) as f32 * 0.1).collect();
        self.tensor(name, dims, Format::F32, bytes_of(&values));
    }

    fn tensor(&mut self, name: &str, dims: &[u32], format: Format, bytes: Vec<u8>) {
        let dims: Vec<u64> = dims.iter().copied().map(u64::from).collect();
        let file = std::mem::take(&mut self.file);
        self.file = file.tensor(name, &dims, format, bytes).expect("dimensions fit");
    }

    fn layer(&mut self, layer: u32, kind: Mixture) {
        let name = |suffix: &str| format!("blk.{layer}.{suffix}");
        self.floats(&name("attn_norm.weight"), &[HIDDEN], 0.8);
        self.floats(&name("ffn_norm.weight"), &[HIDDEN], 0.8);
        if kind == Mixture::Qwen3 {
            self.matrix(&name("attn_q.weight"), &[HIDDEN, 4 * 32]);
            self.matrix(&name("attn_k.weight"), &[HIDDEN, 2 * 32]);
            self.matrix(&name("attn_v.weight"), &[HIDDEN, 2 * 32]);
            self.matrix(&name("attn_output.weight"), &[4 * 32, HIDDEN]);
            self.floats(&name("attn_q_norm.weight"), &[32], 0.8);
            self.floats(&name("attn_k_norm.weight"), &[32], 0.8);
        } else {
            self.latent(kind, &name);
        }
        if kind == Mixture::DeepSeekV2 && layer == 0 {
            self.matrix(&name("ffn_gate.weight"), &[HIDDEN, 2 * WIDTH]);
            self.matrix(&name("ffn_up.weight"), &[HIDDEN, 2 * WIDTH]);
            return self.matrix(&name("ffn_down.weight"), &[2 * WIDTH, HIDDEN]);
        }
        self.experts(kind, &name);
    }

    fn latent(&mut self, kind: Mixture, name: &dyn Fn(&str) -> String) {
        let query = HEADS * (PLAIN + ROTATED);
        self.matrix(&name("attn_kv_a_mqa.weight"), &[HIDDEN, RANK + ROTATED]);
        self.floats(&name("attn_kv_a_norm.weight"), &[RANK], 0.8);
        self.matrix(&name("attn_output.weight"), &[HEADS * VALUE, HIDDEN]);
        if kind == Mixture::DeepSeekV2 {
            self.matrix(&name("attn_q.weight"), &[HIDDEN, query]);
            return self.matrix(&name("attn_kv_b.weight"), &[RANK, HEADS * (PLAIN + VALUE)]);
        }
        self.matrix(&name("attn_q_a.weight"), &[HIDDEN, 256]);
        self.floats(&name("attn_q_a_norm.weight"), &[256], 0.8);
        self.matrix(&name("attn_q_b.weight"), &[256, query]);
        self.matrix(&name("attn_k_b.weight"), &[PLAIN, RANK, HEADS]);
        self.matrix(&name("attn_v_b.weight"), &[RANK, VALUE, HEADS]);
    }

    fn experts(&mut self, kind: Mixture, name: &dyn Fn(&str) -> String) {
        let random: Vec<f32> = (0..HIDDEN * EXPERTS).map(|_| self.random.float() * 0.3).collect();
        self.tensor(&name("ffn_gate_inp.weight"), &[HIDDEN, EXPERTS], Format::F32, bytes_of(&random));
        self.matrix(&name("ffn_gate_exps.weight"), &[HIDDEN, WIDTH, EXPERTS]);
        self.matrix(&name("ffn_up_exps.weight"), &[HIDDEN, WIDTH, EXPERTS]);
        self.matrix(&name("ffn_down_exps.weight"), &[WIDTH, HIDDEN, EXPERTS]);
        if kind == Mixture::DeepSeekV3 {
            self.floats(&name("exp_probs_b.bias"), &[EXPERTS], -0.2);
        }
        if kind == Mixture::DeepSeekV2 {
            self.matrix(&name("ffn_gate_shexp.weight"), &[HIDDEN, WIDTH]);
            self.matrix(&name("ffn_up_shexp.weight"), &[HIDDEN, WIDTH]);
            self.matrix(&name("ffn_down_shexp.weight"), &[WIDTH, HIDDEN]);
        }
    }
}

/// Writes a model of random weights with the output head tied to the embedding.
pub fn write_mixture(path: &Path, kind: Mixture, format: Format) {
    let architecture = if kind == Mixture::Qwen3 { "qwen3moe" } else { "deepseek2" };
    let numbers = [
        ("block_count", LAYERS),
        ("context_length", CONTEXT),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", 2 * WIDTH),
        ("expert_feed_forward_length", WIDTH),
        ("expert_count", EXPERTS),
        ("expert_used_count", CHOSEN),
        ("attention.head_count", 4),
    ];
    let own: &[(&str, u32)] = match kind {
        Mixture::Qwen3 => {
            &[("attention.head_count_kv", 2), ("attention.key_length", 32), ("attention.value_length", 32)]
        }
        Mixture::DeepSeekV2 => &[
            ("attention.key_length", PLAIN + ROTATED),
            ("attention.value_length", VALUE),
            ("attention.kv_lora_rank", RANK),
            ("rope.dimension_count", ROTATED),
            ("leading_dense_block_count", 1),
            ("expert_shared_count", 1),
        ],
        Mixture::DeepSeekV3 => &[
            ("attention.head_count_kv", 1),
            ("attention.key_length", RANK + ROTATED),
            ("attention.value_length", RANK),
            ("attention.key_length_mla", PLAIN + ROTATED),
            ("attention.value_length_mla", VALUE),
            ("attention.kv_lora_rank", RANK),
            ("attention.q_lora_rank", 256),
            ("rope.dimension_count", ROTATED),
            ("expert_gating_func", 2),
            ("expert_group_count", 4),
            ("expert_group_used_count", 2),
        ],
    };
    let mut file = GgufWriter::new().metadata("general.architecture", architecture);
    for (key, number) in numbers.iter().chain(own) {
        file = file.metadata(&format!("{architecture}.{key}"), *number);
    }
    file = file.metadata(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-5_f32);
    let mut writer = Writer { file, random: Random(0x2545_f491_4f6c_dd1d), format };
    writer.matrix("token_embd.weight", &[HIDDEN, VOCABULARY]);
    writer.floats("output_norm.weight", &[HIDDEN], 0.8);
    (0..LAYERS).for_each(|layer| writer.layer(layer, kind));
    writer.file.write_file(path).expect("the file can be written");
}
