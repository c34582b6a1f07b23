//! How the default model is widened without changing what it computes: every width becomes a multiple of 256, and what is
//! added is zero.
//!
//! Zero columns of the embedding table and zero rows of what is added to the residual stream keep its new places zero;
//! zero heads come in whole groups behind the others, look at nothing and meet zero columns of the output matrix. A norm
//! divides by the root of the mean square, which is smaller by the factor of the widening: the epsilon is made smaller by
//! the same factor, and the weights by its root.

use stages::gguf::{GgufWriter, Metadata};

/// The width a width becomes.
pub fn width(width: u64) -> u64 {
    width.next_multiple_of(256)
}

/// The metadata of the widened model.
///
/// # Panics
/// When the model's heads cannot be added to in whole groups; the default model's can.
pub fn metadata(of: &Metadata) -> GgufWriter {
    let number = |key: &str| u64::from(of.u32(key).expect("a llama model has it"));
    let (hidden, heads) = (number("llama.embedding_length"), number("llama.attention.head_count"));
    let (kv_heads, head) = (number("llama.attention.head_count_kv"), number("llama.rope.dimension_count"));
    let (wide_heads, wide_kv_heads) = (width(hidden) / head, width(kv_heads * head) / head);
    assert_eq!(hidden, heads * head, "heads fill the width");
    assert_eq!((wide_heads % wide_kv_heads, wide_heads / wide_kv_heads), (0, heads / kv_heads), "groups stay");
    let epsilon = of.f32("llama.attention.layer_norm_rms_epsilon").expect("a llama model has it");

    of.iter().fold(GgufWriter::new(), |file, (key, value)| match key {
        "llama.embedding_length" => file.metadata(key, width(hidden) as u32),
        "llama.attention.head_count" => file.metadata(key, wide_heads as u32),
        "llama.attention.head_count_kv" => file.metadata(key, wide_kv_heads as u32),
        "llama.attention.layer_norm_rms_epsilon" => file.metadata(key, epsilon * narrowing(hidden)),
        // What the format was, in llama.cpp's numbering of mixtures.
        "general.file_type" => file,
        _ => file.metadata(key, value.clone()),
    })
}

/// Makes a norm's weights, the first `narrow` of `weights`, those of the widened model.
pub fn scale_norm(weights: &mut [f32], narrow: u64) {
    weights.iter_mut().for_each(|weight| *weight *= narrowing(narrow).sqrt());
}

fn narrowing(narrow: u64) -> f32 {
    narrow as f32 / width(narrow) as f32
}
