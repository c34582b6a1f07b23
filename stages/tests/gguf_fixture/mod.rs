//! Synthetic model files, made with the crate's own writer.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::PathBuf;

use stages::format::Format;
use stages::gguf::GgufWriter;

/// Layers of the synthetic model.
pub(crate) const LAYERS: u32 = 6;

/// Width of its residual stream.
pub(crate) const HIDDEN: u64 = 256;

/// Rows of its embedding table.
pub(crate) const VOCABULARY: u64 = 512;

/// Rows of its one large matrix per layer, which takes a little over 1 MiB in Q8_0.
pub(crate) const WIDE: u64 = 4096;

/// Pseudo-random bytes that depend on `seed` and position.
pub(crate) fn noise(seed: u64, count: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    };
    (0..count).map(|_| (step(&mut state) >> 32) as u8).collect()
}

/// The bytes of `floats`, little endian.
pub(crate) fn float_bytes(floats: impl IntoIterator<Item = f32>) -> Vec<u8> {
    floats.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// Metadata of a small language model with `layers` layers.
pub(crate) fn metadata(layers: u32) -> GgufWriter {
    let tokens: Vec<String> = (0..VOCABULARY).map(|token| format!("<{token}>")).collect();
    GgufWriter::new()
        .metadata("general.architecture", "llama")
        .metadata("general.name", "Synthetic")
        .metadata("llama.block_count", layers)
        .metadata("llama.context_length", 2048u32)
        .metadata("llama.embedding_length", HIDDEN as u32)
        .metadata("llama.attention.head_count", 8u32)
        .metadata("llama.attention.head_count_kv", 2u32)
        .metadata("tokenizer.ggml.model", "gpt2")
        .metadata("tokenizer.ggml.tokens", &tokens[..])
}

/// Adds a norm of one row: `start`, `start + 1` and so on.
pub(crate) fn norm(writer: GgufWriter, name: &str, start: f32) -> GgufWriter {
    let bytes = float_bytes((0..HIDDEN).map(|index| start + index as f32));
    writer.tensor(name, &[HIDDEN], Format::F32, bytes).unwrap()
}

/// A model of [`LAYERS`] layers of a little over 1 MiB each. `tied` ties its output head to the embedding.
pub(crate) fn model(tied: bool) -> GgufWriter {
    let embedding = float_bytes((0..HIDDEN * VOCABULARY).map(|index| index as f32));
    let mut writer =
        metadata(LAYERS).tensor("token_embd.weight", &[HIDDEN, VOCABULARY], Format::F32, embedding).unwrap();
    for layer in 0..LAYERS {
        writer = norm(writer, &format!("blk.{layer}.attn_norm.weight"), layer as f32);
        let bytes = WIDE * HIDDEN / 32 * 34;
        let matrix = noise(layer.into(), bytes);
        let name = format!("blk.{layer}.ffn_up.weight");
        writer = writer.tensor(&name, &[HIDDEN, WIDE], Format::Q8_0, matrix).unwrap();
    }
    writer = norm(writer, "output_norm.weight", 0.5);
    writer = norm(writer, "rope_freqs.weight", 0.25);
    if !tied {
        let head = noise(99, HIDDEN * VOCABULARY * 2);
        writer = writer.tensor("output.weight", &[HIDDEN, VOCABULARY], Format::F16, head).unwrap();
    }
    writer
}

/// A folder with the file `model.gguf` made by `writer`. Dropping the folder deletes the file.
pub(crate) fn file(writer: GgufWriter) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    writer.write_file(&path).unwrap();
    (folder, path)
}
