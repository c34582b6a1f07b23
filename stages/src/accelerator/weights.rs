//! A shard's weights on the device. They are copied layer by layer. Each layer's mapped pages are released before the
//! next layer is mapped, so that a machine whose CPU and GPU share memory never holds a shard twice.

use candle_core::Tensor;
use schema::LayerRange;

use super::hardware::Hardware;
use super::matrix::Matrix;
use crate::model::{ModelConfig, ROPE_FACTORS, Rope};
use crate::shard::{Backend, HeadTensors, LayerTensors, SetupError};
use crate::weights::{self, EmbeddingRows, Shard};

/// One layer's weights.
pub(super) type Layer = LayerTensors<Matrix, Tensor>;

/// The output head's weights.
pub(super) type Head = HeadTensors<Matrix, Tensor>;

/// All weights of a shard.
#[derive(Debug)]
pub(super) struct ShardWeights {
    /// Present in the first stage. Rows of the table are read from the file and sent to the device with the step's
    /// inputs.
    pub(super) embedding: Option<EmbeddingRows>,
    pub(super) layers: Vec<Layer>,
    /// Present in the last stage.
    pub(super) head: Option<Head>,
    pub(super) rope: Rope,
}

/// Backend that copies tensors to the device.
struct Upload<'a>(&'a Hardware);

// === impl ShardWeights ===

impl ShardWeights {
    /// Copies the weights of `shard` to `hardware`.
    ///
    /// # Errors
    /// [`SetupError`] if the file lacks something, or the device has no room.
    pub(super) fn upload(config: &ModelConfig, shard: &Shard, hardware: &Hardware) -> Result<Self, SetupError> {
        let (embedding, range) = (shard.embedding(), shard.layers());
        let (mut layers, mut head, mut rope) = (Vec::new(), None, config.rope(None)?);
        for layer in range.start()..range.end() {
            // A range of one layer is never empty, so no layer is skipped.
            let Some(one) = LayerRange::new(layer, layer + 1) else { continue };
            let one = shard.file().map(one)?;
            layers.push(Layer::hold(&one, layer, &Upload(hardware))?);
            if layer + 1 == config.layers {
                head = Some(Head::hold(&one, &Upload(hardware))?);
            }
            if let Some(factors) = one.find(ROPE_FACTORS)? {
                rope = config.rope(Some(&factors.f32s()?))?;
            }
        }
        Ok(Self { embedding, layers, head, rope })
    }
}

// === impl Upload ===

impl Backend for Upload<'_> {
    type Matrix = Matrix;
    type Vector = Tensor;
    type Error = SetupError;

    fn matrix(&self, tensor: weights::Tensor) -> Result<Matrix, SetupError> {
        Ok(Matrix::upload(&tensor, self.0)?)
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
