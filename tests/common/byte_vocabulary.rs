//! A vocabulary for models with random weights.

use stages::gguf::GgufWriter;

/// A vocabulary of `size` tokens: the characters that stand for single bytes, then unused ones.
pub(crate) fn byte_vocabulary(file: GgufWriter, size: usize) -> GgufWriter {
    // Bytes that are no visible characters are written as the characters from 256 on.
    let visible = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let hidden = (0..256).filter(|byte| !visible(byte)).count() as u32;
    let bytes = (0..256).filter(visible).chain(256..256 + hidden).filter_map(char::from_u32).map(String::from);
    let unused = (256..size).map(|token| format!("[PAD{token}]"));
    let tokens: Vec<String> = bytes.chain(unused).take(size).collect();
    let kinds: Vec<i32> = (0..size).map(|token| if token < 256 { 1 } else { 4 }).collect();
    file.metadata("tokenizer.ggml.model", "gpt2")
        .metadata("tokenizer.ggml.pre", "smollm")
        .metadata("tokenizer.ggml.tokens", &tokens[..])
        .metadata("tokenizer.ggml.token_type", &kinds[..])
        .metadata("tokenizer.ggml.merges", &[] as &[&str])
        .metadata("tokenizer.ggml.eos_token_id", 0_u32)
}
