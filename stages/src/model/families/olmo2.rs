//! OLMo 2: norms of what layers add in place of their inputs, and norms of whole rows of queries and keys.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::FeedForward;
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer, QueryKeyNorm};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec, NormSpec};

pub(super) const FAMILY: Family = Family { architecture: "olmo2", implements: &[], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let attention = AttentionSpec { query_key_norm: QueryKeyNorm::Row, ..keys.attention()? };
    let layer = LayerSpec::new(
        Mixer::Attention(attention),
        FeedForward::Dense(keys.dense()?),
        NormSpec { before: false, after: true, ..keys.norms()? },
    );
    keys.uniform(keys.rope(RopeStyle::Halves, attention.key)?, layer)
}
