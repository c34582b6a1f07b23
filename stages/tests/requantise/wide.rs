//! Widens the default model without changing its results: every width becomes a multiple of 256, and the added weights
//! are zero.
//!
//! Zero columns of the embedding table, and zero rows of the matrices whose products are added to the residual stream,
//! keep the new elements of the stream zero. Zero heads are added in whole groups behind the others, and their outputs
//! are multiplied by zero columns of the output matrix. A norm divides by the root of the mean square, and the widening
//! reduces the mean square by its factor. So the epsilon is reduced by the same factor, and the weights by its root.

use stages::gguf::{GgufWriter, Metadata};

/// The widened width of `width`.
pub fn width(width: u64) -> u64 {
    width.next_multiple_of(256)
}

/// The metadata of the widened model.
///
/// # Panics
/// If heads cannot be added to the model in whole groups. For the default model they can.
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
        // The format of the original file, in llama.cpp's numbering of mixtures.
        "general.file_type" => file,
        _ => file.metadata(key, value.clone()),
    })
}

/// Scales a norm's weights, the first `narrow` of `weights`, for the widened model.
pub fn scale_norm(weights: &mut [f32], narrow: u64) {
    weights.iter_mut().for_each(|weight| *weight *= narrowing(narrow).sqrt());
}

fn narrowing(narrow: u64) -> f32 {
    narrow as f32 / width(narrow) as f32
}
