//! GLM-4: norms before and after each part, one tensor for gate and up, and rotation of a part of each head.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{DenseSpec, FeedForward};
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec, NormSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family = Family { architecture: "glm4", implements: &[], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let attention = AttentionSpec { biases: Presence::Optional, ..keys.attention()? };
    let dense = DenseSpec { fused: true, ..keys.dense()? };
    let norms = NormSpec { after: true, ..keys.norms()? };
    // Converters reorder the rows of Q and K in files whose positions have several parts (M-RoPE).
    let style = if keys.rope_sections()? { RopeStyle::Halves } else { RopeStyle::Adjacent };
    let layer = LayerSpec::new(Mixer::Attention(attention), FeedForward::Dense(dense), norms);
    keys.uniform(keys.rope(style, attention.key)?, layer)
}
