//! MiniMax-M2: norms of whole rows of queries and keys, and experts that are chosen by sigmoid.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{ExpertsSpec, FeedForward, RouterScore, Routing};
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer, QueryKeyNorm};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family =
    Family { architecture: "minimax-m2", implements: &["expert_count"], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let attention = AttentionSpec { query_key_norm: QueryKeyNorm::Row, ..keys.attention()? };
    let experts = keys.required_experts()?;
    let routing = Routing { score: RouterScore::Sigmoid, normalise: true, ..experts.routing };
    let layer = LayerSpec::new(
        Mixer::Attention(attention),
        FeedForward::Experts(ExpertsSpec { routing, selection_bias: true, ..experts }),
        keys.norms()?,
    );
    keys.uniform(keys.rope(RopeStyle::Halves, attention.key)?, layer)
}
