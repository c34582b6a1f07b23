//! GGUF files made from the golden models' safetensors, and from random numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use stages::format::Format;
use stages::gguf::GgufWriter;

/// A golden model: its configuration, its tensors, and the outputs of transformers for it.
pub struct Golden {
    pub config: Json,
    tensors: BTreeMap<String, (Vec<u64>, Vec<f32>)>,
    pub input_ids: Vec<u32>,
    pub greedy: Vec<u32>,
    /// Logits at the last positions of the input.
    pub last_logits: Vec<Vec<f32>>,
}

impl Golden {
    pub fn read(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("tiny-{name}"));
        let json = |file: &str| -> Json {
            serde_json::from_slice(&std::fs::read(folder.join(file)).expect("the fixture is there")).expect("is JSON")
        };
        let (config, golden) = (json("config.json"), json("golden.json"));
        let ids = |key: &str| serde_json::from_value(golden[key].clone()).expect("ids");
        Self {
            config,
            tensors: read_safetensors(&folder.join("model.safetensors")),
            input_ids: ids("input_ids"),
            greedy: ids("greedy_16"),
            last_logits: serde_json::from_value(golden["last_4_logits"].clone()).expect("logits"),
        }
    }

    /// Writes the model as a GGUF file with 32-bit weights.
    pub fn write_gguf(&self, path: &Path) {
        let kind = self.config["model_type"].as_str().expect("a model type");
        let architecture = if kind == "mistral" { "llama" } else { kind };
        let mut file = self.metadata(architecture);
        let (heads, kv_heads) = (self.number("num_attention_heads"), self.number("num_key_value_heads"));
        for (name, (dims, values)) in &self.tensors {
            let values = match architecture {
                "llama" if name.ends_with("q_proj.weight") => interleave(values, dims, heads as usize),
                "llama" if name.ends_with("k_proj.weight") => interleave(values, dims, kv_heads as usize),
                _ => values.clone(),
            };
            let dims: Vec<u64> = dims.iter().rev().copied().collect();
            file = file.tensor(&gguf_name(name), &dims, Format::F32, bytes_of(&values)).expect("dimensions fit");
        }
        if let Some(factors) = self.rope_factors() {
            let dims = [factors.len() as u64];
            file = file.tensor("rope_freqs.weight", &dims, Format::F32, bytes_of(&factors)).expect("dimensions fit");
        }
        file.write_file(path).expect("the file can be written");
    }

    fn metadata(&self, architecture: &str) -> GgufWriter {
        let own = |suffix: &str| format!("{architecture}.{suffix}");
        let head = self.config["head_dim"]
            .as_u64()
            .unwrap_or_else(|| u64::from(self.number("hidden_size")) / u64::from(self.number("num_attention_heads")))
            as u32;
        let theta = self.config["rope_parameters"]["rope_theta"].as_f64().expect("a base") as f32;
        let epsilon = self.config["rms_norm_eps"].as_f64().expect("an epsilon") as f32;
        let file = GgufWriter::new()
            .metadata("general.architecture", architecture)
            .metadata(&own("block_count"), self.number("num_hidden_layers"))
            .metadata(&own("context_length"), self.number("max_position_embeddings"))
            .metadata(&own("embedding_length"), self.number("hidden_size"))
            .metadata(&own("feed_forward_length"), self.number("intermediate_size"))
            .metadata(&own("attention.head_count"), self.number("num_attention_heads"))
            .metadata(&own("attention.head_count_kv"), self.number("num_key_value_heads"))
            .metadata(&own("attention.key_length"), head)
            .metadata(&own("attention.value_length"), head)
            .metadata(&own("attention.layer_norm_rms_epsilon"), epsilon)
            .metadata(&own("rope.dimension_count"), head)
            .metadata(&own("rope.freq_base"), theta);
        match self.config["sliding_window"].as_u64() {
            Some(window) => file.metadata(&own("attention.sliding_window"), window as u32),
            None => file,
        }
    }

    /// The matrix called `name` in the safetensors file, by rows.
    pub fn matrix(&self, name: &str) -> Option<Vec<Vec<f64>>> {
        let (dims, values) = self.tensors.get(name)?;
        let rows = values.chunks(dims[1] as usize);
        Some(rows.map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect())
    }

    /// The vector called `name` in the safetensors file.
    pub fn vector(&self, name: &str) -> Option<Vec<f64>> {
        self.tensors.get(name).map(|(_, values)| values.iter().map(|value| f64::from(*value)).collect())
    }

    /// RoPE frequency of each pair of a head's dimensions, in radians per token.
    pub fn rope_frequencies(&self, head: usize) -> Vec<f64> {
        let theta = self.config["rope_parameters"]["rope_theta"].as_f64().expect("a base");
        let factors = self.rope_factors().unwrap_or_else(|| vec![1.0; head / 2]);
        let frequency =
            |(pair, factor): (usize, &f32)| theta.powf(-2.0 * pair as f64 / head as f64) / f64::from(*factor);
        factors.iter().enumerate().map(frequency).collect()
    }

    pub fn number(&self, key: &str) -> u32 {
        self.config[key].as_u64().unwrap_or_else(|| panic!("{key} is a number")) as u32
    }

    /// Llama 3's divisors of its RoPE frequencies, by the model card's formula.
    fn rope_factors(&self) -> Option<Vec<f32>> {
        let rope = &self.config["rope_parameters"];
        if rope["rope_type"] != "llama3" {
            return None;
        }
        let number = |key: &str| rope[key].as_f64().expect("a number");
        let (factor, low, high) = (number("factor"), number("low_freq_factor"), number("high_freq_factor"));
        let (context, theta) = (number("original_max_position_embeddings"), number("rope_theta"));
        let head = f64::from(self.number("head_dim"));
        let factors = (0..self.number("head_dim") / 2).map(|pair| {
            let length = 2.0 * std::f64::consts::PI * theta.powf(2.0 * f64::from(pair) / head);
            if length < context / high {
                1.0
            } else if length > context / low {
                factor
            } else {
                let smooth = (context / length - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        });
        Some(factors.map(|factor| factor as f32).collect())
    }
}

/// Sizes of a random model.
#[derive(Clone, Copy)]
pub struct Shape {
    pub architecture: &'static str,
    pub layers: u32,
    pub hidden: u32,
    pub feed_forward: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head: u32,
    pub vocabulary: u32,
    pub context: u32,
    pub window: Option<u32>,
    pub format: Format,
}

/// Writes a model of random weights with the output head tied to the embedding.
pub fn write_random(path: &Path, shape: Shape) {
    let own = |suffix: &str| format!("{}.{suffix}", shape.architecture);
    let mut file = GgufWriter::new()
        .metadata("general.architecture", shape.architecture)
        .metadata(&own("block_count"), shape.layers)
        .metadata(&own("context_length"), shape.context)
        .metadata(&own("embedding_length"), shape.hidden)
        .metadata(&own("feed_forward_length"), shape.feed_forward)
        .metadata(&own("attention.head_count"), shape.heads)
        .metadata(&own("attention.head_count_kv"), shape.kv_heads)
        .metadata(&own("attention.key_length"), shape.head)
        .metadata(&own("attention.value_length"), shape.head)
        .metadata(&own("attention.layer_norm_rms_epsilon"), 1e-5_f32);
    if let Some(window) = shape.window {
        file = file.metadata(&own("attention.sliding_window"), window);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut matrix = |file: GgufWriter, name: &str, cols: u32, rows: u32| {
        let bytes = random_blocks(&mut random, shape.format, cols as usize * rows as usize, cols as f32);
        file.tensor(name, &[cols.into(), rows.into()], shape.format, bytes).expect("dimensions fit")
    };
    let norm = |file: GgufWriter, name: &str, width: u32| {
        let values: Vec<f32> = (0..width).map(|index| 0.8 + (index % 5) as f32 * 0.1).collect();
        file.tensor(name, &[width.into()], Format::F32, bytes_of(&values)).expect("dimensions fit")
    };
    file = matrix(file, "token_embd.weight", shape.hidden, shape.vocabulary);
    file = norm(file, "output_norm.weight", shape.hidden);
    for layer in 0..shape.layers {
        let name = |suffix: &str| format!("blk.{layer}.{suffix}.weight");
        let (q, kv) = (shape.heads * shape.head, shape.kv_heads * shape.head);
        file = norm(file, &name("attn_norm"), shape.hidden);
        file = norm(file, &name("ffn_norm"), shape.hidden);
        file = matrix(file, &name("attn_q"), shape.hidden, q);
        file = matrix(file, &name("attn_k"), shape.hidden, kv);
        file = matrix(file, &name("attn_v"), shape.hidden, kv);
        file = matrix(file, &name("attn_output"), q, shape.hidden);
        file = matrix(file, &name("ffn_gate"), shape.hidden, shape.feed_forward);
        file = matrix(file, &name("ffn_up"), shape.hidden, shape.feed_forward);
        file = matrix(file, &name("ffn_down"), shape.feed_forward, shape.hidden);
        if shape.architecture == "qwen2" {
            for (bias, width) in [("attn_q", q), ("attn_k", kv), ("attn_v", kv)] {
                file = norm(file, &format!("blk.{layer}.{bias}.bias"), width);
            }
        }
        if shape.architecture == "qwen3" {
            file = norm(file, &name("attn_q_norm"), shape.head);
            file = norm(file, &name("attn_k_norm"), shape.head);
        }
    }
    file.write_file(path).expect("the file can be written");
}

/// Xorshift generator, which is good enough for weights.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5
    }
}

/// Random blocks whose values have about the size that keeps a dot product of `inputs` inputs near one.
fn random_blocks(random: &mut Random, format: Format, values: usize, inputs: f32) -> Vec<u8> {
    let scale = 2.0 / inputs.sqrt();
    if format.block_values() == 1 {
        let values: Vec<f32> = (0..values).map(|_| random.float() * scale).collect();
        return match format {
            Format::F32 => bytes_of(&values),
            Format::F16 => values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
        };
    }
    let mut bytes = Vec::new();
    for _ in 0..values / format.block_values() {
        let mut block: Vec<u8> = (0..format.block_bytes()).map(|_| random.next() as u8).collect();
        if format == Format::Mxfp4 {
            // The scale is a power of two: the exponent of a float, and ggml halves it.
            block[0] = ((2.0 * scale / 12.0).to_bits() >> 23) as u8;
            bytes.extend(block);
            continue;
        }
        if format == Format::Iq1M {
            // The 16 bits of the scale are the upper halves of four bytes.
            let bits = half::f16::from_f32(scale / 15.0).to_bits();
            for (at, byte) in [49, 51, 53, 55].into_iter().enumerate() {
                block[byte] = block[byte] & 15 | ((bits >> (4 * at)) as u8) << 4;
            }
            bytes.extend(block);
            continue;
        }
        // Offsets of the format's 16-bit scales in a block, and the largest integer that they are multiplied with.
        let (scales, largest): (&[usize], f32) = match format {
            Format::Q4_0 => (&[0], 8.0),
            Format::Q4_1 => (&[0, 2], 16.0),
            Format::Q5_0 => (&[0], 16.0),
            Format::Q5_1 => (&[0, 2], 32.0),
            Format::Q8_0 => (&[0], 127.0),
            Format::Q4K | Format::Q5K => (&[0, 2], 63.0 * 16.0),
            Format::Q6K => (&[208], 32.0 * 127.0),
            Format::Q2K => (&[80, 82], 15.0 * 3.0),
            Format::Iq4Nl => (&[0], 127.0),
            Format::Iq4Xs => (&[0], 32.0 * 127.0),
            Format::Tq1_0 => (&[52], 1.0),
            Format::Tq2_0 => (&[64], 2.0),
            Format::Iq2Xxs | Format::Iq2Xs | Format::Iq2S => (&[0], 4.0 * 43.0),
            Format::Iq3Xxs => (&[0], 8.0 * 62.0),
            Format::Iq3S => (&[0], 31.0 * 15.0),
            Format::Iq1S => (&[0], 15.0),
            _ => (&[108], 32.0 * 4.0),
        };
        for at in scales {
            let scale = half::f16::from_f32(scale / largest * (0.75 + random.float() * 0.5));
            block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        bytes.extend(block);
    }
    bytes
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The tensors of a safetensors file of 32-bit floats: a length, a JSON header, the bytes.
fn read_safetensors(path: &Path) -> BTreeMap<String, (Vec<u64>, Vec<f32>)> {
    let bytes = std::fs::read(path).expect("the fixture is there");
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: BTreeMap<String, Json> = serde_json::from_slice(header).expect("a JSON header");
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let read = |(name, tensor): (String, Json)| {
        assert_eq!(tensor["dtype"], "F32", "{name}");
        let [from, to]: [usize; 2] = serde_json::from_value(tensor["data_offsets"].clone()).expect("offsets");
        let dims = serde_json::from_value(tensor["shape"].clone()).expect("a shape");
        let values = data[from..to].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        (name, (dims, values))
    };
    tensors.map(read).collect()
}

fn gguf_name(name: &str) -> String {
    let renamed = match name {
        "model.embed_tokens.weight" => return "token_embd.weight".to_owned(),
        "model.norm.weight" => return "output_norm.weight".to_owned(),
        "lm_head.weight" => return "output.weight".to_owned(),
        layer => layer.strip_prefix("model.layers.").expect("a layer's tensor"),
    };
    let names = [
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let (layer, rest) = renamed.split_once('.').expect("a layer number");
    let (theirs, kind) = rest.rsplit_once('.').expect("weight or bias");
    let ours = names.iter().find(|(name, _)| *name == theirs).unwrap_or_else(|| panic!("{theirs} is known")).1;
    format!("blk.{layer}.{ours}.{kind}")
}

/// Reorders each head's rows so that the two rows of a RoPE pair are neighbours, as converters do for llama.
fn interleave(values: &[f32], dims: &[u64], heads: usize) -> Vec<f32> {
    let (rows, cols) = (dims[0] as usize, dims[1] as usize);
    let half = rows / heads / 2;
    let row = |head: usize, pair: usize, side: usize| &values[((head * 2 + side) * half + pair) * cols..][..cols];
    let order = (0..heads).flat_map(|head| (0..half).flat_map(move |pair| (0..2).map(move |side| (head, pair, side))));
    order.flat_map(|(head, pair, side)| row(head, pair, side).iter().copied()).collect()
}
