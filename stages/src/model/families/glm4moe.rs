//! GLM-4.5 and later: norms and biases of queries and keys in the larger ones, rotation of a part of each head, a few
//! dense layers first, then experts that are chosen by sigmoid, with a network beside them. The layers that predict
//! further tokens are left out.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{ExpertsSpec, FeedForward, RouterScore, Routing};
use crate::model::keys::Keys;
use crate::model::layer_role::LayerRole;
use crate::model::mixer::{AttentionSpec, Mixer, QueryKeyNorm};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family = Family {
    architecture: "glm4moe",
    implements: &["expert_count", "expert_group_count"],
    names: &[(LayerRole::FeedForwardNorm, "post_attention_norm.weight")],
    read,
};

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let attention = AttentionSpec {
        query_key_norm: QueryKeyNorm::Head,
        norms: Presence::Optional,
        biases: Presence::Optional,
        ..keys.attention()?
    };
    let experts = keys.required_experts()?;
    let scale = keys.positive("expert_weights_scale", Some(1.0))?;
    let score = keys.router_score(RouterScore::Sigmoid)?;
    let (normalise, groups) = (keys.flag_or("expert_weights_norm", true)?, keys.expert_groups(&experts)?);
    let routing = Routing { score, normalise, scale, groups, ..experts.routing };
    let shared = keys.shared_experts(experts.width)?;
    let experts = ExpertsSpec { routing, selection_bias: true, shared, ..experts };
    let (dense, norms) = (keys.dense()?, keys.norms()?);
    let dense_layers = keys.count("leading_dense_block_count")? as usize;
    let layer = |index: usize| {
        LayerSpec::new(
            Mixer::Attention(attention),
            if index < dense_layers { FeedForward::Dense(dense) } else { FeedForward::Experts(experts) },
            norms,
        )
    };
    let rope = keys.rope(RopeStyle::Halves, attention.key)?;
    keys.model(vec![rope], (0..keys.layers()?).map(layer).collect())
}
