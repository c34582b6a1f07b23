//! Models without experts.

use super::attention::Attention;
use super::{Shape, Values};

pub(super) fn llama_1b() -> Shape {
    let attention = Attention { hidden: 2048, heads: 32, kv_heads: 8, head: 64, ..PLAIN };
    dense(Shape::new("llama", 128_256, 2048, 16, 131_072), 16, &attention, 8192, &[])
}

/// Eight of its 36 layers: these are larger than any cache, and still fit a small machine in every format.
pub(super) fn qwen3_4b() -> Shape {
    let (norm_epsilon, rope_base) = (1e-6, 1_000_000.0);
    let attention =
        Attention { hidden: 2560, heads: 32, kv_heads: 8, head: 128, norm_epsilon, rope_base, normed: true, ..PLAIN };
    dense(Shape::new("qwen3", 151_936, 2560, 8, 40_960), 8, &attention, 9728, &[])
}

pub(super) fn smollm2() -> Shape {
    let attention = Attention { hidden: 576, heads: 9, kv_heads: 3, head: 64, rope_base: 100_000.0, ..PLAIN };
    dense(Shape::new("llama", 49_152, 576, 30, 8192), 30, &attention, 1536, &[])
}

/// Eight of its 34 layers: the sixth looks at everything, the others at a window.
pub(super) fn gemma3_4b() -> Shape {
    let (norm_epsilon, rope_base) = (1e-6, 1_000_000.0);
    let attention =
        Attention { hidden: 2560, heads: 8, kv_heads: 4, head: 256, norm_epsilon, rope_base, normed: true, ..PLAIN };
    let mut shape = Shape::new("gemma3", 262_208, 2560, 8, 131_072);
    shape.set("attention.sliding_window", 1024_u32);
    shape.set("rope.scaling.type", "linear").set("rope.scaling.factor", 8.0_f32);
    dense(shape, 8, &attention, 10_240, &["post_attention_norm.weight", "post_ffw_norm.weight"])
}

const PLAIN: Attention = Attention {
    hidden: 0,
    heads: 0,
    kv_heads: 0,
    head: 0,
    norm_epsilon: 1e-5,
    rope_base: 500_000.0,
    normed: false,
    biased: false,
};

/// Adds layers with a gated feed-forward network of this width and the norms of these names.
fn dense(
    mut shape: Shape,
    layers: u32,
    attention: &Attention,
    feed_forward: u32,
    more_norms: &[&'static str],
) -> Shape {
    let hidden = attention.hidden;
    attention.describe(&mut shape);
    shape.set("feed_forward_length", feed_forward);
    shape.layers(layers, |_| {
        let mut tensors = attention.tensors();
        tensors.extend(more_norms.iter().map(|&name| (name, vec![hidden], Values::Ones)));
        tensors.extend([
            ("ffn_norm.weight", vec![hidden], Values::Ones),
            ("ffn_gate.weight", vec![hidden, feed_forward], Values::Weights),
            ("ffn_up.weight", vec![hidden, feed_forward], Values::Weights),
            ("ffn_down.weight", vec![feed_forward, hidden], Values::Weights),
        ]);
        tensors
    });
    shape
}
