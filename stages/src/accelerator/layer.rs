//! Computes one layer for the rows of a tile.

use candle_core::{Result, Tensor};
use candle_nn::ops::rms_norm;
use candle_nn::rotary_emb::{rope, rope_i};

use super::attention::attend;
use super::dense_model::DenseModel;
use super::inputs::TileInputs;
use super::kv::LayerKv;
use super::weights::{Attention, Layer};
use crate::model::RopeStyle;
use crate::shard::{FeedForwardTensors, MixerTensors};

/// A tile's inputs and settings while its layers are computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) config: &'a DenseModel,
    pub(super) inputs: &'a TileInputs,
    /// Pairs of dimensions that are rotated together.
    pub(super) rope_style: RopeStyle,
}

// === impl Step ===

impl Step<'_> {
    /// The rows `[row][hidden]` after one more layer. Their keys and values are written to `kv`.
    pub(super) fn layer(&self, rows: &Tensor, layer: &Layer, kv: &LayerKv) -> Result<Tensor> {
        let epsilon = self.config.norm_epsilon;
        let (MixerTensors::Attention(attention), FeedForwardTensors::Dense(dense)) =
            (&layer.mixer, &layer.feed_forward)
        else {
            candle_core::bail!("a layer that `DenseModel` refuses")
        };
        let (Some(mixer_norm), Some(feed_forward_norm)) = (&layer.mixer_norm, &layer.feed_forward_norm) else {
            candle_core::bail!("a layer that `DenseModel` refuses")
        };
        let input = rms_norm(rows, mixer_norm, epsilon)?;
        let query = self.write_kv(&input, attention, kv)?;
        let attended = attend(self.config, &query, kv, self.inputs)?;
        let rows = (rows + attention.output.multiply(&attended)?)?;
        let input = rms_norm(&rows, feed_forward_norm, epsilon)?;
        let gated = (dense.gate.multiply(&input)?.silu()? * dense.up.multiply(&input)?)?;
        rows + dense.down.multiply(&gated)?
    }

    /// Writes the rows' keys and values, and returns their scaled queries, `[head][row][dimension]`.
    fn write_kv(&self, input: &Tensor, layer: &Attention, kv: &LayerKv) -> Result<Tensor> {
        let config = self.config;
        let [query_norm, key_norm] = layer.query_key_norms.each_ref().map(Option::as_ref);
        let [query_bias, key_bias, value_bias] = layer.biases.each_ref().map(Option::as_ref);
        let key = biased(layer.key.multiply(input)?, key_bias)?;
        let key = self.heads(&key, config.attention.kv_heads, config.attention.key, key_norm)?;
        kv.write_keys(&self.apply_rope(&key)?, &self.inputs.key_slots)?;
        let value = biased(layer.value.multiply(input)?, value_bias)?;
        let value = self.heads(&value, config.attention.kv_heads, config.attention.value, None)?;
        kv.write_values(&value, &self.inputs.value_slots)?;
        let query = biased(layer.query.multiply(input)?, query_bias)?;
        let query = self.heads(&query, config.attention.heads, config.attention.key, query_norm)?;
        self.apply_rope(&query)? * f64::from(config.attention.score_divisor).recip()
    }

    /// `[row][head × dimension]` as `[head][row][dimension]`, each head normalised if there is a norm.
    fn heads(&self, rows: &Tensor, heads: usize, width: usize, norm: Option<&Tensor>) -> Result<Tensor> {
        let mut rows = rows.reshape((rows.dim(0)?, heads, width))?;
        if let Some(norm) = norm {
            rows = rms_norm(&rows, norm, self.config.norm_epsilon)?;
        }
        rows.transpose(0, 1)?.contiguous()
    }

    /// Rotates heads by their rows' positions.
    fn apply_rope(&self, heads: &Tensor) -> Result<Tensor> {
        let (rotated, width) = (2 * self.config.rope.pairs(), heads.dim(2)?);
        let TileInputs { cosines, sines, .. } = self.inputs;
        let rotate = |part: &Tensor| match self.rope_style {
            RopeStyle::Adjacent => rope_i(&part.unsqueeze(0)?, cosines, sines)?.squeeze(0),
            RopeStyle::Halves => rope(&part.unsqueeze(0)?, cosines, sines)?.squeeze(0),
        };
        if rotated == width {
            return rotate(heads);
        }
        let part = rotate(&heads.narrow(2, 0, rotated)?.contiguous()?)?;
        Tensor::cat(&[&part, &heads.narrow(2, rotated, width - rotated)?], 2)
    }
}

/// Adds the bias to the rows, if there is one.
fn biased(rows: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => rows.broadcast_add(bias),
        None => Ok(rows),
    }
}
