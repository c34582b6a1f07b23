//! SmolLM3: llama without positions in every fourth layer.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::FeedForward;
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family = Family { architecture: "smollm3", implements: &[], names: &[], read };

/// Every layer of this number, counted from 1, has no positions.
const WITHOUT_POSITIONS: usize = 4;

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let (attention, dense, norms) = (keys.attention()?, keys.dense()?, keys.norms()?);
    let layer = |index: usize| {
        let rope = attention.rope.filter(|_| !(index + 1).is_multiple_of(WITHOUT_POSITIONS));
        LayerSpec::new(Mixer::Attention(AttentionSpec { rope, ..attention }), FeedForward::Dense(dense), norms)
    };
    let rope = keys.rope(RopeStyle::Adjacent, attention.key)?;
    keys.model(vec![rope], (0..keys.layers()?).map(layer).collect())
}
