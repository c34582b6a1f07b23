//! The models that the GPU runner computes: equal layers of grouped attention and a gated network with SiLU. The one
//! list of what it refuses. Pure.

use crate::model::{
    Activation, AttentionSpec, DenseSpec, FeedForward, LayerSpec, Mixer, ModelSpec, QueryKeyNorm, RopeScaling,
    RopeSpec, UnsupportedModel, Window,
};

/// The sizes and constants of a model of equal, dense layers.
#[derive(Debug, Clone)]
pub(crate) struct DenseModel {
    pub(super) layers: u32,
    pub(super) hidden: usize,
    pub(super) vocabulary: usize,
    pub(super) context_tokens: u32,
    pub(super) norm_epsilon: f32,
    pub(super) attention: AttentionSpec,
    pub(super) feed_forward: usize,
    pub(super) rope: RopeSpec,
}

// === impl DenseModel ===

impl DenseModel {
    /// The sizes of `spec`.
    ///
    /// # Errors
    /// [`UnsupportedModel::Accelerator`] for a model with anything that the GPU runner does not compute.
    pub(crate) fn of(spec: &ModelSpec) -> Result<Self, UnsupportedModel> {
        let refused = |feature| UnsupportedModel::Accelerator { family: spec.family.architecture, feature };
        let (Some(first), [rope]) = (spec.layers.first(), spec.ropes.as_slice()) else {
            return Err(refused("several rotary embeddings"));
        };
        if spec.layers.iter().any(|layer| layer != first) {
            return Err(refused("layers that differ"));
        }
        let LayerSpec { mixer, feed_forward, norms, residual_scale, output_scale } = first;
        let (Some(head), None, false) = (spec.head, spec.embedding.added, norms.of_sums) else {
            return Err(refused("texts that go through layers whole"));
        };
        let factors = [spec.embedding.scale, head.scale, *residual_scale];
        let scaled = *output_scale || factors.iter().any(|factor| *factor != 1.0);
        if scaled || head.softcap.is_some() {
            return Err(refused("scaled or bounded values"));
        }
        if !norms.before || norms.after {
            return Err(refused("norms of what layers add"));
        }
        let Mixer::Attention(attention) = mixer else { return Err(refused("latent attention")) };
        let FeedForward::Dense(DenseSpec { width, activation, .. }) = feed_forward else {
            return Err(refused("experts"));
        };
        if *activation != Activation::Silu {
            return Err(refused("an activation other than SiLU"));
        }
        let AttentionSpec { rope: layer_rope, query_key_norm, output_bias, sinks, softcap, temperature, .. } =
            attention;
        let AttentionSpec { window, norm_after_rope, value_norm, shared_key_value, .. } = attention;
        let plain = layer_rope.is_some() && softcap.is_none() && temperature.is_none() && !output_bias && !sinks;
        let usual =
            !norm_after_rope && !value_norm && !shared_key_value && !matches!(window, Window::Chunk(_) | Window::Text);
        if !plain || !usual || !matches!(query_key_norm, QueryKeyNorm::None | QueryKeyNorm::Head) {
            return Err(refused("its attention"));
        }
        if matches!(rope.scaling, RopeScaling::LongRope(_)) {
            return Err(refused("its rotary embedding"));
        }
        Ok(Self {
            layers: spec.layer_count(),
            hidden: spec.hidden,
            vocabulary: spec.vocabulary,
            context_tokens: spec.context_tokens,
            norm_epsilon: norms.epsilon,
            attention: *attention,
            feed_forward: *width,
            rope: *rope,
        })
    }
}
