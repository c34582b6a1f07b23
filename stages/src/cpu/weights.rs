//! The tensors of a shard, looked up once. Matrices stay mapped. Norms and biases, a few kilobytes a layer, are copied.

use half::{bf16, f16};
use schema::LayerRange;

use super::math::add;
use super::norm::layer_norm_in_place;
use crate::format::Format;
use crate::kernels::{Isa, Matrix, dequantise_row};
use crate::model::{AddedRows, EMBEDDING, EMBEDDING_NORM, EMBEDDING_NORM_BIAS, ModelSpec, POSITIONS, TOKEN_TYPES};
use crate::shard::{
    AttentionTensors, Backend, DenseTensors, ExpertTensors, LatentTensors, LatentUp, LayerTensors, MixerTensors,
    OutputHeadTensors, PlainTensors, ShortConvTensors, SumNorm,
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

/// Weights of a short convolution, with its taps as `[tap][channel]`.
pub(super) type ShortConv = ShortConvTensors<Tensor, Vec<f32>>;

/// Weights of a gated network.
pub(super) type Dense = DenseTensors<Tensor>;

/// Weights of a network without a gate.
pub(super) type Plain = PlainTensors<Tensor, Vec<f32>>;

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

/// The rows that are added to a token's, and the norm of the sum.
#[derive(Debug)]
pub(super) struct AddedTensors {
    pub(super) positions: Option<Tensor>,
    /// The row of the first type of tokens.
    pub(super) first_type: Vec<f32>,
    pub(super) norm: SumNorm<Vec<f32>>,
    pub(super) norm_epsilon: f32,
}

/// All weights of a shard.
#[derive(Debug)]
pub(super) struct ShardWeights {
    /// Present in the first stage.
    pub(super) embedding: Option<Embedding>,
    /// Present in the first stage of a model that adds rows to a token's.
    pub(super) added: Option<AddedTensors>,
    pub(super) layers: Vec<Layer>,
    /// True in the last stage.
    pub(super) last: bool,
    /// Present in the last stage of a model that makes logits.
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
        let output_head = (last && spec.head.is_some()).then(|| OutputHead::load(shard, &MappedBackend)).transpose()?;
        let tied = output_head.as_ref().filter(|head| head.output.name() == EMBEDDING);
        let embedding = shard.embedding().map(|rows| match tied {
            Some(head) => Embedding::Mapped(head.output.clone()),
            None => Embedding::Read(rows),
        });
        let added = spec.embedding.added.filter(|_| embedding.is_some());
        let added = added.map(|added| AddedTensors::load(added, shard)).transpose()?;
        Ok(Self { embedding, added, layers, last, output_head })
    }
}

// === impl AddedTensors ===

impl AddedTensors {
    /// Adds the rows to that of a token at `position`, and normalises the sum.
    pub(super) fn add(&self, isa: Isa, position: u32, x: &mut [f32]) {
        add(isa, x, &self.first_type);
        if let Some(positions) = &self.positions {
            let mut row = vec![0.0; x.len()];
            dequantise_row(&positions.matrix(), position as usize, &mut row);
            add(isa, x, &row);
        }
        layer_norm_in_place(isa, x, &self.norm.weight, &self.norm.bias, self.norm_epsilon);
    }

    fn load(spec: AddedRows, shard: &MappedShard) -> Result<Self, TensorError> {
        let types = shard.tensor(TOKEN_TYPES)?;
        let mut first_type = vec![0.0; types.matrix().cols()];
        dequantise_row(&types.matrix(), 0, &mut first_type);
        Ok(Self {
            positions: spec.positions.then(|| shard.tensor(POSITIONS)).transpose()?,
            first_type,
            norm: SumNorm {
                weight: shard.tensor(EMBEDDING_NORM)?.f32s()?,
                bias: shard.tensor(EMBEDDING_NORM_BIAS)?.f32s()?,
            },
            norm_epsilon: spec.norm_epsilon,
        })
    }
}

// === impl Layer ===

impl Layer {
    fn load(spec: &ModelSpec, shard: &MappedShard, layer: u32) -> Result<Self, TensorError> {
        let mut tensors = LayerTensors::load(spec, shard, layer, &MappedBackend)?;
        if let MixerTensors::ShortConv(conv) = &mut tensors.mixer {
            conv.taps = by_tap(&conv.taps, conv.spec.taps as usize);
        }
        let key_copy = match &tensors.mixer {
            MixerTensors::Latent(latent) => TransposedKeys::of(latent),
            MixerTensors::Attention(_) | MixerTensors::ShortConv(_) => None,
        };
        Ok(Self { tensors, key_copy })
    }
}

/// The factors `[channel][tap]` as `[tap][channel]`, so that neighbouring channels are computed together.
fn by_tap(taps: &[f32], count: usize) -> Vec<f32> {
    (0..count).flat_map(|tap| taps.iter().skip(tap).step_by(count).copied()).collect()
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
