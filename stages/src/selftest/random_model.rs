//! GGUF files of random models.

use std::path::Path;

use crate::format::Format;
use crate::gguf::{GgufWriter, WriteError};

/// Sizes of a random model. `architecture` is llama, qwen2 or qwen3, or one whose layers have the same tensors.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Name in the file.
    pub architecture: &'static str,
    /// Number of layers.
    pub layers: u32,
    /// Values in a row.
    pub hidden: u32,
    /// Inner values of the gated network.
    pub feed_forward: u32,
    /// Query heads.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Values in a head.
    pub head: u32,
    /// Tokens.
    pub vocabulary: u32,
    /// Longest sequence, in tokens.
    pub context: u32,
    /// Tokens that attention sees, if not all.
    pub window: Option<u32>,
    /// Of all matrices.
    pub format: Format,
}

/// Writes a model of random weights with the output head tied to the embedding.
///
/// # Errors
/// [`WriteError`] if the shape is none of whole blocks, or the file cannot be written.
pub fn write_random(path: &Path, shape: Shape) -> Result<(), WriteError> {
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
        file.tensor(name, &[cols.into(), rows.into()], shape.format, bytes)
    };
    let norm = |file: GgufWriter, name: &str, width: u32| {
        let values: Vec<f32> = (0..width).map(|index| 0.8 + (index % 5) as f32 * 0.1).collect();
        file.tensor(name, &[width.into()], Format::F32, bytes_of(&values))
    };
    file = matrix(file, "token_embd.weight", shape.hidden, shape.vocabulary)?;
    file = norm(file, "output_norm.weight", shape.hidden)?;
    for layer in 0..shape.layers {
        let name = |suffix: &str| format!("blk.{layer}.{suffix}.weight");
        let (q, kv) = (shape.heads * shape.head, shape.kv_heads * shape.head);
        file = norm(file, &name("attn_norm"), shape.hidden)?;
        file = norm(file, &name("ffn_norm"), shape.hidden)?;
        file = matrix(file, &name("attn_q"), shape.hidden, q)?;
        file = matrix(file, &name("attn_k"), shape.hidden, kv)?;
        file = matrix(file, &name("attn_v"), shape.hidden, kv)?;
        file = matrix(file, &name("attn_output"), q, shape.hidden)?;
        file = matrix(file, &name("ffn_gate"), shape.hidden, shape.feed_forward)?;
        file = matrix(file, &name("ffn_up"), shape.hidden, shape.feed_forward)?;
        file = matrix(file, &name("ffn_down"), shape.feed_forward, shape.hidden)?;
        if shape.architecture == "qwen2" {
            for (bias, width) in [("attn_q", q), ("attn_k", kv), ("attn_v", kv)] {
                file = norm(file, &format!("blk.{layer}.{bias}.bias"), width)?;
            }
        }
        if shape.architecture == "qwen3" {
            file = norm(file, &name("attn_q_norm"), shape.head)?;
            file = norm(file, &name("attn_k_norm"), shape.head)?;
        }
    }
    file.write_file(path)
}

/// Xorshift generator, which is good enough for weights.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number between -0.5 and 0.5.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32 - 0.5
    }
}

/// Random blocks whose values have about the size that keeps a dot product of `inputs` inputs near one.
pub fn random_blocks(random: &mut Random, format: Format, values: usize, inputs: f32) -> Vec<u8> {
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
        let mut block: Vec<u8> = (0..format.block_bytes()).map(|_| random.bits() as u8).collect();
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

/// The bytes of floats, as files have them.
pub fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
