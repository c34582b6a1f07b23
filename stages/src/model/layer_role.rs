//! The parts that tensors play in a layer, and their usual names in GGUF files.

/// The part that a tensor plays in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerRole {
    /// The norm before the mixer.
    MixerNorm,
    /// The norm of what the mixer adds to the residual stream.
    MixerTermNorm,
    /// The norm of the residual stream after the mixer.
    MixerSumNorm,
    /// Bias of this norm.
    MixerSumNormBias,
    /// Makes queries, keys and values.
    QueryKeyValue,
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
    /// Bias of attention's output.
    MixerOutputBias,
    /// The sink of each head.
    Sinks,
    /// Norm of queries.
    QueryNorm,
    /// Norm of keys.
    KeyNorm,
    /// Makes compressed queries.
    QueryDown,
    /// Norm of compressed queries.
    QueryDownNorm,
    /// Makes queries of compressed ones.
    QueryUp,
    /// Makes a token's compressed values and the key that all heads share.
    KeyValueDown,
    /// Norm of the compressed values.
    KeyValueDownNorm,
    /// Makes keys and values of the compressed values: for each head the rows of keys, then those of values.
    KeyValueUp,
    /// Multiplies each head's query with the matrix that makes its keys: that matrix, transposed.
    KeyUp,
    /// Makes each head's values.
    ValueUp,
    /// Turns attention's results into a term of the residual stream.
    MixerOutput,
    /// Makes the two gates and the input of a convolution, in this order.
    ConvInput,
    /// The factors of each channel, the oldest token's first.
    ConvTaps,
    /// Turns a convolution's results into a term of the residual stream.
    ConvOutput,
    /// The norm before the feed-forward network.
    FeedForwardNorm,
    /// The norm of what the feed-forward network adds to the residual stream.
    FeedForwardTermNorm,
    /// The norm of the residual stream after the feed-forward network.
    FeedForwardSumNorm,
    /// Bias of this norm.
    FeedForwardSumNormBias,
    /// The norm of the result of the network beside the experts.
    SharedTermNorm,
    /// The norm before the experts.
    ExpertsNorm,
    /// The norm of the experts' result.
    ExpertsTermNorm,
    /// Factors of the router's input.
    RouterScale,
    /// Factor of each expert's result.
    ExpertScales,
    /// The gates of all experts and the values that they are multiplied with, an expert's one after the other.
    ExpertGatesUps,
    /// Factor of the layer's output.
    OutputScale,
    /// The gate of the feed-forward network.
    Gate,
    /// The values that its gate is multiplied with.
    Up,
    /// Turns them into a term of the residual stream.
    Down,
    /// Bias of the values that have no gate.
    UpBias,
    /// Bias of the term that is made of them.
    DownBias,
    /// Makes the logits of experts.
    Router,
    /// Bias of the logits of experts.
    RouterBias,
    /// Biases of the gates of all experts.
    ExpertGateBiases,
    /// Biases of the values that they are multiplied with.
    ExpertUpBiases,
    /// Biases of the experts' terms.
    ExpertDownBiases,
    /// Added to the scores of experts for their choice.
    SelectionBias,
    /// The gates of all experts.
    ExpertGates,
    /// The values that they are multiplied with.
    ExpertUps,
    /// Turns them into terms of the residual stream.
    ExpertDowns,
    /// The gate of the network beside the experts.
    SharedGate,
    /// The values that it is multiplied with.
    SharedUp,
    /// Turns them into a term of the residual stream.
    SharedDown,
    /// Makes the logit that the result of the network beside the experts is weighed by.
    SharedRouter,
}

// === impl LayerRole ===

impl LayerRole {
    /// The usual name of the role's tensor in a layer, after `blk.<layer>.`.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::MixerNorm => "attn_norm.weight",
            Self::MixerTermNorm => "post_attention_norm.weight",
            Self::MixerSumNorm => "attn_output_norm.weight",
            Self::MixerSumNormBias => "attn_output_norm.bias",
            Self::QueryKeyValue => "attn_qkv.weight",
            Self::Query => "attn_q.weight",
            Self::Key => "attn_k.weight",
            Self::Value => "attn_v.weight",
            Self::QueryBias => "attn_q.bias",
            Self::KeyBias => "attn_k.bias",
            Self::ValueBias => "attn_v.bias",
            Self::MixerOutputBias => "attn_output.bias",
            Self::Sinks => "attn_sinks.weight",
            Self::QueryNorm => "attn_q_norm.weight",
            Self::KeyNorm => "attn_k_norm.weight",
            Self::QueryDown => "attn_q_a.weight",
            Self::QueryDownNorm => "attn_q_a_norm.weight",
            Self::QueryUp => "attn_q_b.weight",
            Self::KeyValueDown => "attn_kv_a_mqa.weight",
            Self::KeyValueDownNorm => "attn_kv_a_norm.weight",
            Self::KeyValueUp => "attn_kv_b.weight",
            Self::KeyUp => "attn_k_b.weight",
            Self::ValueUp => "attn_v_b.weight",
            Self::MixerOutput => "attn_output.weight",
            Self::ConvInput => "shortconv.in_proj.weight",
            Self::ConvTaps => "shortconv.conv.weight",
            Self::ConvOutput => "shortconv.out_proj.weight",
            Self::FeedForwardNorm => "ffn_norm.weight",
            Self::FeedForwardTermNorm => "post_ffw_norm.weight",
            Self::FeedForwardSumNorm => "layer_output_norm.weight",
            Self::FeedForwardSumNormBias => "layer_output_norm.bias",
            Self::SharedTermNorm => "post_ffw_norm_1.weight",
            Self::ExpertsNorm => "pre_ffw_norm_2.weight",
            Self::ExpertsTermNorm => "post_ffw_norm_2.weight",
            Self::RouterScale => "ffn_gate_inp.scale",
            Self::ExpertScales => "ffn_down_exps.scale",
            Self::ExpertGatesUps => "ffn_gate_up_exps.weight",
            Self::OutputScale => "layer_output_scale.weight",
            Self::Gate => "ffn_gate.weight",
            Self::Up => "ffn_up.weight",
            Self::Down => "ffn_down.weight",
            Self::UpBias => "ffn_up.bias",
            Self::DownBias => "ffn_down.bias",
            Self::Router => "ffn_gate_inp.weight",
            Self::RouterBias => "ffn_gate_inp.bias",
            Self::ExpertGateBiases => "ffn_gate_exps.bias",
            Self::ExpertUpBiases => "ffn_up_exps.bias",
            Self::ExpertDownBiases => "ffn_down_exps.bias",
            Self::SelectionBias => "exp_probs_b.bias",
            Self::ExpertGates => "ffn_gate_exps.weight",
            Self::ExpertUps => "ffn_up_exps.weight",
            Self::ExpertDowns => "ffn_down_exps.weight",
            Self::SharedGate => "ffn_gate_shexp.weight",
            Self::SharedUp => "ffn_up_shexp.weight",
            Self::SharedDown => "ffn_down_shexp.weight",
            Self::SharedRouter => "ffn_gate_inp_shexp.weight",
        }
    }
}
