//! The buffers that hold a tile's intermediate results. Allocated once, for the largest layer.

use super::device::{Gpu, GpuError};
use super::limits::{ROWS_MAX, SPLIT_TOKENS};
use crate::model::{AttentionSpec, FeedForward, Mixer, ModelSpec};

/// The buffers, each of `ROWS_MAX` rows.
#[derive(Debug)]
pub(super) struct Scratch<B> {
    /// The residual stream.
    pub(super) stream: B,
    /// Rows after a norm.
    pub(super) normed: B,
    /// Queries, keys and values as matrices make them.
    pub(super) query_key_value: B,
    /// Queries, normed, rotated and scaled.
    pub(super) queries: B,
    /// Results of attention over each split: values, the largest score, the sum of weights.
    pub(super) parts: B,
    /// Results of attention.
    pub(super) attended: B,
    /// Inner values of the gated network.
    pub(super) gated: B,
    /// For each row, 1 if it has values that are not finite.
    pub(super) unusable: B,
    /// The rows whose logits are computed.
    pub(super) logit_rows: B,
    /// Logits, in the last stage.
    pub(super) logits: B,
    /// The rules by which the device chooses tokens: `kernels/choose.h`.
    pub(super) rules: B,
    /// The token chosen of each row of logits, and the logarithm of its probability.
    pub(super) chosen: B,
    /// Stands for a buffer that a kernel does not read.
    pub(super) none: B,
    /// Splits that `parts` has room for.
    pub(super) splits: usize,
}

// === impl Scratch ===

impl<B> Scratch<B> {
    /// The buffers for sequences up to `tokens_max` tokens.
    ///
    /// # Errors
    /// [`GpuError::Memory`] if the device has no room.
    pub(super) fn new<G: Gpu<Buffer = B>>(
        spec: &ModelSpec,
        last: bool,
        tokens_max: u32,
        gpu: &mut G,
    ) -> Result<Self, GpuError> {
        let attentions = || {
            spec.layers.iter().filter_map(|layer| match &layer.mixer {
                Mixer::Attention(attention) => Some(attention),
                Mixer::Latent(_) | Mixer::ShortConv(_) => None,
            })
        };
        let largest = |size: fn(&AttentionSpec) -> usize| attentions().map(size).max().unwrap_or(1);
        let inner = spec.layers.iter().map(|layer| match &layer.feed_forward {
            FeedForward::Dense(dense) => dense.width,
            FeedForward::Experts(_) | FeedForward::Plain(_) => 1,
        });
        let inner = inner.max().unwrap_or(1);
        let splits = (tokens_max as usize).div_ceil(SPLIT_TOKENS).max(1);
        let mut rows = |width: usize| gpu.allocate(4 * ROWS_MAX * width);
        Ok(Self {
            stream: rows(spec.hidden)?,
            normed: rows(spec.hidden)?,
            query_key_value: rows(largest(|of| of.query_width() + of.key_width() + of.value_width()))?,
            queries: rows(largest(AttentionSpec::query_width))?,
            parts: rows(splits * largest(|of| of.heads * (of.value + 2)))?,
            attended: rows(largest(AttentionSpec::output_width))?,
            gated: rows(inner)?,
            unusable: rows(1)?,
            logit_rows: rows(1)?,
            logits: rows(if last { spec.vocabulary } else { 1 })?,
            rules: rows(6)?,
            chosen: rows(2)?,
            none: rows(1)?,
            splits,
        })
    }
}
