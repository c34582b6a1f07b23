//! LFM2: short convolutions, and in some layers attention with norms of heads. Layers without key-value heads are
//! convolutions.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::FeedForward;
use crate::model::keys::{HEAD_WIDTH_MAX, Keys, WIDTH_MAX};
use crate::model::mixer::{AttentionSpec, Mixer, QueryKeyNorm, ShortConvSpec};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family = Family { architecture: "lfm2", implements: &[], names: &[], read };

/// Largest accepted number of a convolution's taps: ten times that of all known models.
const TAPS_MAX: u32 = 32;

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let (layers, hidden, heads) = (keys.layers()?, keys.hidden()?, keys.size("attention.head_count", WIDTH_MAX)?);
    let kv_heads = keys.counts("attention.head_count_kv", layers, 0..=WIDTH_MAX)?;
    let taps = keys.size("shortconv.l_cache", TAPS_MAX)? as u32;
    if taps < 2 {
        return Err(keys.wrong("shortconv.l_cache", format!("2 to {TAPS_MAX}"), taps));
    }
    let key = keys.size_or("attention.key_length", hidden / heads, HEAD_WIDTH_MAX)?;
    let value = keys.size_or("attention.value_length", key, HEAD_WIDTH_MAX)?;
    let (dense, norms) = (keys.dense()?, keys.norms()?);
    let mut specs = Vec::with_capacity(layers);
    for kv_heads in kv_heads {
        let mixer = match kv_heads {
            0 => Mixer::ShortConv(ShortConvSpec { width: hidden, taps }),
            _ => Mixer::Attention(AttentionSpec {
                query_key_norm: QueryKeyNorm::Head,
                ..keys.attention_of(heads, kv_heads, key, value)?
            }),
        };
        specs.push(LayerSpec::new(mixer, FeedForward::Dense(dense), norms));
    }
    keys.model(vec![keys.rope(RopeStyle::Halves, key)?], specs)
}
