//! Phi-3 and Phi-4: one tensor for queries, keys and values, and one for gate and up.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{DenseSpec, FeedForward};
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family = Family { architecture: "phi3", implements: &[], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let attention = AttentionSpec { window: keys.window()?, fused: true, ..keys.attention()? };
    let layer = LayerSpec {
        mixer: Mixer::Attention(attention),
        feed_forward: FeedForward::Dense(DenseSpec { fused: true, ..keys.dense()? }),
        norms: keys.norms()?,
        residual_scale: 1.0,
    };
    keys.uniform(keys.rope(RopeStyle::Halves, attention.key)?, layer)
}
