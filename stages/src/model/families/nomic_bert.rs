//! nomic-bert: an encoder with rotary embeddings and gated networks.

use super::Family;
use crate::model::attention_keys::CAUSAL;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::FeedForward;
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family = Family { architecture: "nomic-bert", implements: &[CAUSAL], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let attention = AttentionSpec { fused: true, ..keys.text_attention()? };
    let rope = keys.rope(RopeStyle::Halves, attention.key)?;
    let dense = FeedForward::Dense(keys.dense()?);
    keys.encoder(vec![rope], LayerSpec::new(Mixer::Attention(attention), dense, keys.norms_of_sums()?), false)
}
