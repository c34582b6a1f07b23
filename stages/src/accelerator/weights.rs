//! A shard's weights on the device. They are copied layer by layer, and each layer's mapped pages are given back before
//! the next is mapped, so that a machine whose processor and device share memory never holds a shard twice.

use candle_core::Tensor;
use schema::LayerRange;

use super::hardware::Hardware;
use super::matrix::Matrix;
use super::runner::SetupError;
use crate::model::{Hyper, OUTPUT_NORM, ROPE_FACTORS, Rope};
use crate::weights::{self, EmbeddingRows, ModelFile, Shard};

/// One layer's weights.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Tensor,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    /// Of each head of Q and K.
    pub(super) head_norms: Option<[Tensor; 2]>,
    pub(super) attention_output: Matrix,
    pub(super) feed_forward_norm: Tensor,
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    pub(super) down: Matrix,
}

/// A matrix, and what is added to its products.
#[derive(Debug)]
pub(super) struct Linear {
    matrix: Matrix,
    bias: Option<Tensor>,
}

/// What turns the last layer's rows into logits.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) norm: Tensor,
    pub(super) output: Matrix,
}

/// All weights of a shard.
#[derive(Debug)]
pub(super) struct ShardWeights {
    /// In the first stage: rows of the table are read from the file, and go to the device with the step's inputs.
    pub(super) embedding: Option<EmbeddingRows>,
    pub(super) layers: Vec<Layer>,
    /// In the last stage.
    pub(super) head: Option<Head>,
    pub(super) rope: Rope,
}

/// Copies tensors of one mapped layer to the device.
struct Upload<'a> {
    shard: &'a Shard,
    layer: u32,
    hardware: &'a Hardware,
}

// === impl ShardWeights ===

impl ShardWeights {
    /// Copies the weights of `layers`.
    ///
    /// # Errors
    /// [`SetupError`] when the file lacks something, or the device has no room.
    pub(super) fn upload(
        hyper: &Hyper,
        file: &ModelFile,
        layers: LayerRange,
        hardware: &Hardware,
    ) -> Result<Self, SetupError> {
        let embedding = file.map(layers)?.embedding();
        let (mut copied, mut head, mut rope) = (Vec::new(), None, hyper.rope(None)?);
        for layer in layers.start()..layers.end() {
            // Of one layer, which is never empty.
            let Some(one) = LayerRange::new(layer, layer + 1) else { continue };
            let shard = file.map(one)?;
            let upload = Upload { shard: &shard, layer, hardware };
            copied.push(upload.layer()?);
            if layer + 1 == hyper.layers {
                let norm = upload.vector(&shard.tensor(OUTPUT_NORM)?)?;
                head = Some(Head { norm, output: Matrix::upload(&shard.output()?, hardware)? });
            }
            if let Some(factors) = shard.find(ROPE_FACTORS)? {
                rope = hyper.rope(Some(&factors.f32s()?))?;
            }
        }
        Ok(Self { embedding, layers: copied, head, rope })
    }
}

// === impl Upload ===

impl Upload<'_> {
    fn layer(&self) -> Result<Layer, SetupError> {
        let head_norms = match (self.perhaps("attn_q_norm.weight")?, self.perhaps("attn_k_norm.weight")?) {
            (Some(query), Some(key)) => Some([query, key]),
            _ => None,
        };
        Ok(Layer {
            attention_norm: self.required("attn_norm.weight")?,
            query: self.linear("attn_q")?,
            key: self.linear("attn_k")?,
            value: self.linear("attn_v")?,
            head_norms,
            attention_output: self.matrix("attn_output.weight")?,
            feed_forward_norm: self.required("ffn_norm.weight")?,
            gate: self.matrix("ffn_gate.weight")?,
            up: self.matrix("ffn_up.weight")?,
            down: self.matrix("ffn_down.weight")?,
        })
    }

    fn linear(&self, name: &str) -> Result<Linear, SetupError> {
        Ok(Linear { matrix: self.matrix(&format!("{name}.weight"))?, bias: self.perhaps(&format!("{name}.bias"))? })
    }

    fn matrix(&self, suffix: &str) -> Result<Matrix, SetupError> {
        Ok(Matrix::upload(&self.shard.layer_tensor(self.layer, suffix)?, self.hardware)?)
    }

    fn required(&self, suffix: &str) -> Result<Tensor, SetupError> {
        self.vector(&self.shard.layer_tensor(self.layer, suffix)?)
    }

    fn perhaps(&self, suffix: &str) -> Result<Option<Tensor>, SetupError> {
        let tensor = self.shard.find(&format!("blk.{}.{suffix}", self.layer))?;
        tensor.map(|tensor| self.vector(&tensor)).transpose()
    }

    fn vector(&self, tensor: &weights::Tensor) -> Result<Tensor, SetupError> {
        let values = tensor.f32s()?;
        let count = values.len();
        Ok(Tensor::from_vec(values, count, &self.hardware.device)?)
    }
}

// === impl Linear ===

impl Linear {
    /// `rows × in` activations to `rows × out`.
    pub(super) fn apply(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        let product = self.matrix.multiply(rows)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}
