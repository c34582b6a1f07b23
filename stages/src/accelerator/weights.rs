//! A shard's weights on the device. They are copied layer by layer. Each layer's mapped pages are released before the
//! next layer is mapped, so that a machine whose CPU and GPU share memory never holds a shard twice.

use candle_core::Tensor;
use schema::LayerRange;

use super::dense_model::DenseModel;
use super::hardware::Hardware;
use super::matrix::DeviceMatrix;
use crate::model::{ModelSpec, Rope};
use crate::shard::{AttentionTensors, Backend, LayerTensors, OutputHeadTensors, SetupError};
use crate::weights::{self, EmbeddingRows, MappedShard};

/// One layer's weights.
pub(super) type Layer = LayerTensors<DeviceMatrix, Tensor>;

/// Weights of grouped attention.
pub(super) type Attention = AttentionTensors<DeviceMatrix, Tensor>;

/// The output head's weights.
pub(super) type OutputHead = OutputHeadTensors<DeviceMatrix, Tensor>;

/// All weights of a shard.
#[derive(Debug)]
pub(super) struct ShardWeights {
    /// Present in the first stage. Rows of the table are read from the file and sent to the device with the step's
    /// inputs.
    pub(super) embedding: Option<EmbeddingRows>,
    pub(super) layers: Vec<Layer>,
    /// Present in the last stage.
    pub(super) output_head: Option<OutputHead>,
    pub(super) rope: Rope,
}

/// Backend that copies tensors to the device.
struct UploadBackend<'a>(&'a Hardware);

// === impl ShardWeights ===

impl ShardWeights {
    /// Copies the weights of `shard` to `hardware`.
    ///
    /// # Errors
    /// [`SetupError`] if the file lacks something, or the device has no room.
    pub(super) fn upload(spec: &ModelSpec, shard: &MappedShard, hardware: &Hardware) -> Result<Self, SetupError> {
        let config = DenseModel::of(spec)?;
        let (embedding, range) = (shard.embedding(), shard.layers());
        let (mut layers, mut output_head, mut rope) = (Vec::new(), None, config.rope.rope(None)?);
        for layer in range.start()..range.end() {
            // A range of one layer is never empty, so no layer is skipped.
            let Some(one) = LayerRange::new(layer, layer + 1) else { continue };
            let one = shard.file().map(one)?;
            layers.push(Layer::load(spec, &one, layer, &UploadBackend(hardware))?);
            if layer + 1 == config.layers {
                output_head = Some(OutputHead::load(&one, &UploadBackend(hardware))?);
            }
            if let Some(name) = config.rope.factor_tensor(config.context_tokens)
                && let Some(factors) = one.find(name)?
            {
                rope = config.rope.rope(Some((name, &factors.f32s()?)))?;
            }
        }
        Ok(Self { embedding, layers, output_head, rope })
    }
}

// === impl UploadBackend ===

impl Backend for UploadBackend<'_> {
    type Matrix = DeviceMatrix;
    type Vector = Tensor;
    type Error = SetupError;

    fn matrix(&self, tensor: weights::Tensor) -> Result<DeviceMatrix, SetupError> {
        Ok(DeviceMatrix::upload(&tensor, self.0)?)
    }

    fn vector(&self, tensor: weights::Tensor) -> Result<Tensor, SetupError> {
        let values = tensor.f32s()?;
        let count = values.len();
        Ok(Tensor::from_vec(values, count, &self.0.device)?)
    }
}

impl From<candle_core::Error> for SetupError {
    fn from(error: candle_core::Error) -> Self {
        Self::Device(Box::new(error))
    }
}
