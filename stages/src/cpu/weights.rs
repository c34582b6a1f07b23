//! The tensors of a shard, looked up once. Matrices stay mapped. Norms and biases, a few kilobytes a layer, are copied.

use half::{bf16, f16};
use schema::LayerRange;

use crate::format::Format;
use crate::kernels::{Matrix, dequantise_row};
use crate::model::{EMBEDDING, ModelSpec};
use crate::shard::{
    AttentionTensors, Backend, DenseTensors, ExpertTensors, LatentTensors, LatentUp, LayerTensors, MixerTensors,
    OutputHeadTensors,
};
use crate::weights::{EmbeddingRows, MappedShard, Tensor, TensorError};

/// One layer's weights.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) tensors: LayerTensors<Tensor, Vec<f32>>,
    /// The part of a joint tensor of latent attention that makes keys, transposed.
    pub(super) key_copy: Option<TransposedKeys>,
}

/// A matrix for each head that turns its queries into ones for compressed rows.
#[derive(Debug)]
pub(super) struct TransposedKeys {
    format: Format,
    rank: usize,
    plain: usize,
    /// `[head][compressed value][key's value]`.
    bytes: Vec<u8>,
}

/// Weights of grouped attention.
pub(super) type Attention = AttentionTensors<Tensor, Vec<f32>>;

/// Weights of latent attention.
pub(super) type Latent = LatentTensors<Tensor, Vec<f32>>;

/// Weights of a gated network.
pub(super) type Dense = DenseTensors<Tensor>;

/// Weights of a mixture of experts.
pub(super) type Experts = ExpertTensors<Tensor, Vec<f32>>;

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
        let layers = (range.start()..range.end()).map(|layer| Layer::load(spec, shard, layer));
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

// === impl Layer ===

impl Layer {
    fn load(spec: &ModelSpec, shard: &MappedShard, layer: u32) -> Result<Self, TensorError> {
        let tensors = LayerTensors::load(spec, shard, layer, &MappedBackend)?;
        let key_copy = match &tensors.mixer {
            MixerTensors::Latent(latent) => TransposedKeys::of(latent),
            MixerTensors::Attention(_) => None,
        };
        Ok(Self { tensors, key_copy })
    }
}

// === impl TransposedKeys ===

impl TransposedKeys {
    /// The transposed copy. `None` if the file has such a matrix itself.
    fn of(latent: &Latent) -> Option<Self> {
        let (LatentUp::Joint(joint), spec) = (&latent.up, latent.spec) else { return None };
        let (format, bytes) = spec.key_copy()?;
        let mut bytes = Vec::with_capacity(bytes as usize);
        let mut rows = vec![0.0; spec.plain * spec.rank];
        for head in 0..spec.heads {
            let first = head * (spec.plain + spec.value);
            for (index, row) in rows.chunks_exact_mut(spec.rank).enumerate() {
                dequantise_row(&joint.matrix(), first + index, row);
            }
            for column in 0..spec.rank {
                let values = rows.iter().skip(column).step_by(spec.rank);
                match format {
                    Format::F32 => bytes.extend(values.flat_map(|value| value.to_le_bytes())),
                    Format::BF16 => bytes.extend(values.flat_map(|value| bf16::from_f32(*value).to_le_bytes())),
                    _ => bytes.extend(values.flat_map(|value| f16::from_f32(*value).to_le_bytes())),
                }
            }
        }
        Some(Self { format, rank: spec.rank, plain: spec.plain, bytes })
    }

    /// The matrix of head `head`, which is one of the model's.
    pub(super) fn matrix_at(&self, head: usize) -> Matrix<'_> {
        let len = self.rank * self.plain * self.format.block_bytes();
        let bytes = &self.bytes[head * len..(head + 1) * len];
        Matrix::new(self.format, self.rank, self.plain, bytes).expect("the copy has whole rows of floats")
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
