//! The tensors of a shard, looked up once. Matrices stay mapped. Norms and biases, a few kilobytes a layer, are copied.

use schema::LayerRange;

use crate::model::{EMBEDDING, ModelSpec};
use crate::shard::{AttentionTensors, Backend, DenseTensors, LayerTensors, OutputHeadTensors};
use crate::weights::{EmbeddingRows, MappedShard, Tensor, TensorError};

/// One layer's weights.
pub(super) type Layer = LayerTensors<Tensor, Vec<f32>>;

/// Weights of grouped attention.
pub(super) type Attention = AttentionTensors<Tensor, Vec<f32>>;

/// Weights of a gated network.
pub(super) type Dense = DenseTensors<Tensor>;

/// The output head's weights.
pub(super) type OutputHead = OutputHeadTensors<Tensor, Vec<f32>>;

/// Source of the first layer's rows.
#[derive(Debug)]
pub(super) enum Embedding {
    /// The table is mapped, because the output head is the same tensor.
    Mapped(Tensor),
    /// The table is read from the file, row by row.
    Read(EmbeddingRows),
}

/// All weights of a shard.
#[derive(Debug)]
pub(super) struct ShardWeights {
    /// Present in the first stage.
    pub(super) embedding: Option<Embedding>,
    pub(super) layers: Vec<Layer>,
    /// Present in the last stage.
    pub(super) output_head: Option<OutputHead>,
}

/// Backend that keeps matrices in the mapped file and copies vectors.
struct MappedBackend;

// === impl ShardWeights ===

impl ShardWeights {
    /// Looks up the weights of a model whose tensors were checked.
    ///
    /// # Errors
    /// [`TensorError`] if the shard does not have the tensors that the header promises.
    pub(super) fn find(spec: &ModelSpec, shard: &MappedShard) -> Result<Self, TensorError> {
        let range: LayerRange = shard.layers();
        let layers = (range.start()..range.end()).map(|layer| Layer::load(spec, shard, layer, &MappedBackend));
        let layers = layers.collect::<Result<_, _>>()?;
        let last = range.end() == spec.layer_count();
        let output_head = last.then(|| OutputHead::load(shard, &MappedBackend)).transpose()?;
        let tied = output_head.as_ref().filter(|head| head.output.name() == EMBEDDING);
        let embedding = shard.embedding().map(|rows| match tied {
            Some(head) => Embedding::Mapped(head.output.clone()),
            None => Embedding::Read(rows),
        });
        Ok(Self { embedding, layers, output_head })
    }
}

// === impl MappedBackend ===

impl Backend for MappedBackend {
    type Matrix = Tensor;
    type Vector = Vec<f32>;
    type Error = TensorError;

    fn matrix(&self, tensor: Tensor) -> Result<Tensor, TensorError> {
        Ok(tensor)
    }

    fn vector(&self, tensor: Tensor) -> Result<Vec<f32>, TensorError> {
        tensor.f32s()
    }
}
