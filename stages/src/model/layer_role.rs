//! The parts that tensors play in a layer, and their usual names in GGUF files.

/// The part that a tensor plays in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerRole {
    /// The norm before the mixer.
    MixerNorm,
    /// Makes queries.
    Query,
    /// Makes keys.
    Key,
    /// Makes values.
    Value,
    /// Bias of queries.
    QueryBias,
    /// Bias of keys.
    KeyBias,
    /// Bias of values.
    ValueBias,
    /// Norm of queries.
    QueryNorm,
    /// Norm of keys.
    KeyNorm,
    /// Turns attention's results into a term of the residual stream.
    MixerOutput,
    /// The norm before the feed-forward network.
    FeedForwardNorm,
    /// The gate of the feed-forward network.
    Gate,
    /// The values that its gate is multiplied with.
    Up,
    /// Turns them into a term of the residual stream.
    Down,
}

// === impl LayerRole ===

impl LayerRole {
    /// The usual name of the role's tensor in a layer, after `blk.<layer>.`.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::MixerNorm => "attn_norm.weight",
            Self::Query => "attn_q.weight",
            Self::Key => "attn_k.weight",
            Self::Value => "attn_v.weight",
            Self::QueryBias => "attn_q.bias",
            Self::KeyBias => "attn_k.bias",
            Self::ValueBias => "attn_v.bias",
            Self::QueryNorm => "attn_q_norm.weight",
            Self::KeyNorm => "attn_k_norm.weight",
            Self::MixerOutput => "attn_output.weight",
            Self::FeedForwardNorm => "ffn_norm.weight",
            Self::Gate => "ffn_gate.weight",
            Self::Up => "ffn_up.weight",
            Self::Down => "ffn_down.weight",
        }
    }
}
