//! The tensors of a layer and of the output head, by their names in the file. All devices use this list.

use crate::model::OUTPUT_NORM;
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
    pub(crate) attention_norm: V,
    pub(crate) query: M,
    pub(crate) key: M,
    pub(crate) value: M,
    /// Biases of Q, K and V, if the model has them.
    pub(crate) biases: [Option<V>; 3],
    /// Norms of the heads of Q and of K, if the model has them.
    pub(crate) head_norms: [Option<V>; 2],
    pub(crate) attention_output: M,
    pub(crate) feed_forward_norm: V,
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

// === impl LayerTensors ===

impl<M, V> LayerTensors<M, V> {
    /// The weights of `layer`, which is in `shard`, in the form of `backend`.
    ///
    /// # Errors
    /// [`TensorError`] when the shard does not have a tensor, and the backend's own errors.
    pub(crate) fn load<B: Backend<Matrix = M, Vector = V>>(
        shard: &MappedShard,
        layer: u32,
        backend: &B,
    ) -> Result<Self, B::Error> {
        let matrix = |suffix: &str| backend.matrix(shard.layer_tensor(layer, suffix)?);
        let vector = |suffix: &str| backend.vector(shard.layer_tensor(layer, suffix)?);
        let optional = |suffix: &str| {
            let tensor = shard.find(&format!("blk.{layer}.{suffix}"))?;
            tensor.map(|tensor| backend.vector(tensor)).transpose()
        };
        Ok(Self {
            attention_norm: vector("attn_norm.weight")?,
            query: matrix("attn_q.weight")?,
            key: matrix("attn_k.weight")?,
            value: matrix("attn_v.weight")?,
            biases: [optional("attn_q.bias")?, optional("attn_k.bias")?, optional("attn_v.bias")?],
            head_norms: [optional("attn_q_norm.weight")?, optional("attn_k_norm.weight")?],
            attention_output: matrix("attn_output.weight")?,
            feed_forward_norm: vector("ffn_norm.weight")?,
            gate: matrix("ffn_gate.weight")?,
            up: matrix("ffn_up.weight")?,
            down: matrix("ffn_down.weight")?,
        })
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
