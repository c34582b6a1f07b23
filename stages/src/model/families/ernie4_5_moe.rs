//! ERNIE 4.5 with experts: a few dense layers first, then experts in every layer or every few, chosen with a bias and
//! weighed by softmax, in most models with a network beside them.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{ExpertsSpec, FeedForward, Routing};
use crate::model::keys::Keys;
use crate::model::layer_role::LayerRole;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family =
    Family { architecture: "ernie4_5-moe", implements: &["expert_count"], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let attention = AttentionSpec { biases: Presence::Optional, ..keys.attention()? };
    let experts = keys.required_experts()?;
    let routing = Routing { normalise: true, ..experts.routing };
    let experts = ExpertsSpec { routing, shared: keys.shared_experts(experts.width)?, ..experts };
    let (dense, norms) = (keys.dense()?, keys.norms()?);
    let (dense_layers, step) = (keys.count("leading_dense_block_count")? as usize, keys.moe_layer_step()?);
    let layer = |index: usize| {
        let has_experts = index >= dense_layers && (index + 1).is_multiple_of(step);
        let selection_bias = keys.format(index, LayerRole::SelectionBias).is_some();
        let feed_forward = if has_experts {
            FeedForward::Experts(ExpertsSpec { selection_bias, ..experts })
        } else {
            FeedForward::Dense(dense)
        };
        LayerSpec::new(Mixer::Attention(attention), feed_forward, norms)
    };
    let rope = keys.rope(RopeStyle::Adjacent, attention.key)?;
    keys.model(vec![rope], (0..keys.layers()?).map(layer).collect())
}
