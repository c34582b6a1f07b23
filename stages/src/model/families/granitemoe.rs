//! Granite 3 with experts: Granite's factors, experts weighed by the softmax of the chosen logits, and in some models a
//! network beside them.

use super::{Family, granite};
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{ExpertsSpec, FeedForward, RouterScore, Routing};
use crate::model::keys::Keys;
use crate::model::spec::ModelSpec;

pub(super) const FAMILY: Family = Family {
    architecture: "granitemoe",
    implements: &["expert_count", "embedding_scale", "attention.scale", "residual_scale", "logit_scale"],
    names: &[],
    read,
};

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let experts = keys.required_experts()?;
    let shared = match keys.count("expert_shared_feed_forward_length")? {
        0 => None,
        width => Some(keys.shared(width as usize, false)?),
    };
    let routing = Routing { score: RouterScore::SoftmaxOfChosen, ..experts.routing };
    granite::read_with(keys, FeedForward::Experts(ExpertsSpec { routing, shared, ..experts }))
}
