//! Attention whose queries share keys and values in groups.

use super::{Shape, Values};

/// The sizes and constants of attention.
pub(super) struct Attention {
    pub(super) hidden: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) head: u32,
    pub(super) norm_epsilon: f32,
    pub(super) rope_base: f32,
    /// Queries and keys of a head have a norm.
    pub(super) normed: bool,
    /// The four matrices have biases.
    pub(super) biased: bool,
}

// === impl Attention ===

impl Attention {
    pub(super) fn describe(&self, shape: &mut Shape) {
        shape
            .set("attention.head_count", self.heads)
            .set("attention.head_count_kv", self.kv_heads)
            .set("attention.key_length", self.head)
            .set("attention.value_length", self.head)
            .set("attention.layer_norm_rms_epsilon", self.norm_epsilon)
            .set("rope.dimension_count", self.head)
            .set("rope.freq_base", self.rope_base);
    }

    pub(super) fn tensors(&self) -> Vec<(&'static str, Vec<u32>, Values)> {
        let (hidden, query, key) = (self.hidden, self.heads * self.head, self.kv_heads * self.head);
        let mut tensors = vec![
            ("attn_norm.weight", vec![hidden], Values::Ones),
            ("attn_q.weight", vec![hidden, query], Values::Weights),
            ("attn_k.weight", vec![hidden, key], Values::Weights),
            ("attn_v.weight", vec![hidden, key], Values::Weights),
            ("attn_output.weight", vec![query, hidden], Values::Weights),
        ];
        if self.normed {
            tensors.push(("attn_q_norm.weight", vec![self.head], Values::Ones));
            tensors.push(("attn_k_norm.weight", vec![self.head], Values::Ones));
        }
        if self.biased {
            tensors.push(("attn_q.bias", vec![query], Values::Zeros));
            tensors.push(("attn_k.bias", vec![key], Values::Zeros));
            tensors.push(("attn_v.bias", vec![key], Values::Zeros));
            tensors.push(("attn_output.bias", vec![hidden], Values::Zeros));
        }
        tensors
    }
}
