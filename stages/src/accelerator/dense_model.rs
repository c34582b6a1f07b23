//! The models that the GPU runner computes: equal layers of grouped attention and a gated network with SiLU. The one
//! list of what it refuses. Pure.

use crate::model::{
    Activation, AttentionSpec, DenseSpec, FeedForward, LayerSpec, Mixer, ModelSpec, RopeSpec, UnsupportedModel,
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
        let LayerSpec { mixer, feed_forward, norms } = first;
        let Mixer::Attention(attention) = mixer;
        let FeedForward::Dense(DenseSpec { width, activation: Activation::Silu }) = feed_forward;
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
