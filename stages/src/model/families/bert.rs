//! BERT, and its kin with the same arithmetic (RoBERTa, XLM-R): encoders whose tokens attend to the whole text.

use super::Family;
use crate::model::attention_keys::CAUSAL;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{FeedForward, PlainSpec};
use crate::model::keys::{Keys, WIDTH_MAX};
use crate::model::mixer::{AttentionSpec, Mixer};
use crate::model::spec::{LayerSpec, ModelSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family = Family { architecture: "bert", implements: &[CAUSAL], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let plain = keys.text_attention()?;
    let attention = AttentionSpec { rope: None, biases: Presence::Required, output_bias: true, ..plain };
    let feed_forward = FeedForward::Plain(PlainSpec { width: keys.size("feed_forward_length", WIDTH_MAX)? });
    let layer = LayerSpec::new(Mixer::Attention(attention), feed_forward, keys.norms_of_sums()?);
    keys.encoder(Vec::new(), layer, true)
}
