//! Phi-3 and Phi-4: one tensor for queries, keys and values, and one for gate and up. Models with a longer context have
//! two sets of divisors of their frequencies (LongRoPE).

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{DenseSpec, FeedForward};
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::{RopeScaling, RopeStyle};
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family = Family { architecture: "phi3", implements: &["longrope"], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let attention = AttentionSpec { window: keys.window()?, fused: true, ..keys.attention()? };
    let dense = DenseSpec { fused: true, ..keys.dense()? };
    let layer = LayerSpec::new(Mixer::Attention(attention), FeedForward::Dense(dense), keys.norms()?);
    let mut rope = keys.rope(RopeStyle::Halves, attention.key)?;
    // Converters write the tensors and name no type.
    if keys.has_rope_factors_by_length() {
        rope.scaling = RopeScaling::LongRope(keys.long_rope()?);
    }
    keys.uniform(rope, layer)
}
