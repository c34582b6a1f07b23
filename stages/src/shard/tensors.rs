//! The tensors of a layer and of the output head, by the roles that the model's spec gives them. All devices use this
//! list.

use crate::model::{AttentionSpec, DenseSpec, Family, FeedForward, LayerRole, Mixer, ModelSpec, NormSpec, OUTPUT_NORM};
use crate::weights::{MappedShard, Tensor, TensorError};

/// Converts mapped tensors into the form in which a device holds them.
pub(crate) trait Backend {
    /// A matrix that rows are multiplied with.
    type Matrix;
    /// A norm's weights, or a bias.
    type Vector;
    /// The error for a tensor that cannot be held.
    type Error: From<TensorError>;

    /// Converts a matrix.
    fn matrix(&self, tensor: Tensor) -> Result<Self::Matrix, Self::Error>;
    /// Converts a vector.
    fn vector(&self, tensor: Tensor) -> Result<Self::Vector, Self::Error>;
}

/// One layer's weights.
#[derive(Debug)]
pub(crate) struct LayerTensors<M, V> {
    pub(crate) norms: NormSpec,
    pub(crate) mixer_norm: V,
    pub(crate) mixer: MixerTensors<M, V>,
    pub(crate) feed_forward_norm: V,
    pub(crate) feed_forward: FeedForwardTensors<M>,
}

/// Weights of the part that combines positions.
#[derive(Debug)]
pub(crate) enum MixerTensors<M, V> {
    Attention(AttentionTensors<M, V>),
}

/// Weights of grouped attention.
#[derive(Debug)]
pub(crate) struct AttentionTensors<M, V> {
    pub(crate) spec: AttentionSpec,
    pub(crate) query: M,
    pub(crate) key: M,
    pub(crate) value: M,
    /// Biases of Q, K and V, if the model has them.
    pub(crate) biases: [Option<V>; 3],
    /// Norms of Q and of K, if the model has them.
    pub(crate) query_key_norms: [Option<V>; 2],
    pub(crate) output: M,
}

/// Weights of the part that computes each position by itself.
#[derive(Debug)]
pub(crate) enum FeedForwardTensors<M> {
    Dense(DenseTensors<M>),
}

/// Weights of a gated network.
#[derive(Debug)]
pub(crate) struct DenseTensors<M> {
    pub(crate) spec: DenseSpec,
    pub(crate) gate: M,
    pub(crate) up: M,
    pub(crate) down: M,
}

/// The weights that turn the last layer's rows into logits.
#[derive(Debug)]
pub(crate) struct OutputHeadTensors<M, V> {
    pub(crate) norm: V,
    pub(crate) output: M,
}

/// Looks up the tensors of one layer by their roles.
struct LayerSource<'a, B> {
    family: &'static Family,
    shard: &'a MappedShard,
    layer: u32,
    backend: &'a B,
}

// === impl LayerTensors ===

impl<M, V> LayerTensors<M, V> {
    /// The weights of `layer`, which is in `shard`, in the form of `backend`.
    ///
    /// # Errors
    /// [`TensorError`] when the shard does not have a tensor, and the backend's own errors.
    pub(crate) fn load<B: Backend<Matrix = M, Vector = V>>(
        model: &ModelSpec,
        shard: &MappedShard,
        layer: u32,
        backend: &B,
    ) -> Result<Self, B::Error> {
        let spec = &model.layers[layer as usize];
        let source = LayerSource { family: model.family, shard, layer, backend };
        Ok(Self {
            norms: spec.norms,
            mixer_norm: source.vector(LayerRole::MixerNorm)?,
            mixer: match &spec.mixer {
                Mixer::Attention(attention) => MixerTensors::Attention(source.attention(*attention)?),
            },
            feed_forward_norm: source.vector(LayerRole::FeedForwardNorm)?,
            feed_forward: match &spec.feed_forward {
                FeedForward::Dense(dense) => FeedForwardTensors::Dense(source.dense(*dense)?),
            },
        })
    }
}

// === impl LayerSource ===

impl<B: Backend> LayerSource<'_, B> {
    fn attention(&self, spec: AttentionSpec) -> Result<AttentionTensors<B::Matrix, B::Vector>, B::Error> {
        Ok(AttentionTensors {
            spec,
            query: self.matrix(LayerRole::Query)?,
            key: self.matrix(LayerRole::Key)?,
            value: self.matrix(LayerRole::Value)?,
            biases: [
                self.optional(LayerRole::QueryBias)?,
                self.optional(LayerRole::KeyBias)?,
                self.optional(LayerRole::ValueBias)?,
            ],
            query_key_norms: [self.optional(LayerRole::QueryNorm)?, self.optional(LayerRole::KeyNorm)?],
            output: self.matrix(LayerRole::MixerOutput)?,
        })
    }

    fn dense(&self, spec: DenseSpec) -> Result<DenseTensors<B::Matrix>, B::Error> {
        let (gate, up) = (self.matrix(LayerRole::Gate)?, self.matrix(LayerRole::Up)?);
        Ok(DenseTensors { spec, gate, up, down: self.matrix(LayerRole::Down)? })
    }

    fn matrix(&self, role: LayerRole) -> Result<B::Matrix, B::Error> {
        self.backend.matrix(self.shard.layer_tensor(self.layer, self.family.suffix(role))?)
    }

    fn vector(&self, role: LayerRole) -> Result<B::Vector, B::Error> {
        self.backend.vector(self.shard.layer_tensor(self.layer, self.family.suffix(role))?)
    }

    fn optional(&self, role: LayerRole) -> Result<Option<B::Vector>, B::Error> {
        let tensor = self.shard.find(&format!("blk.{}.{}", self.layer, self.family.suffix(role)))?;
        tensor.map(|tensor| self.backend.vector(tensor)).transpose()
    }
}

// === impl OutputHeadTensors ===

impl<M, V> OutputHeadTensors<M, V> {
    /// The output head's weights, in the form of `backend`. `shard` has the last layer.
    ///
    /// # Errors
    /// As [`LayerTensors::load`].
    pub(crate) fn load<B: Backend<Matrix = M, Vector = V>>(shard: &MappedShard, backend: &B) -> Result<Self, B::Error> {
        Ok(Self { norm: backend.vector(shard.tensor(OUTPUT_NORM)?)?, output: backend.matrix(shard.output()?)? })
    }
}
