//! Ministral 3 and Devstral 2: llama with YaRN, and with scores that grow with the position.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::FeedForward;
use crate::model::keys::Keys;
use crate::model::mixer::{AttentionSpec, Mixer, Temperature};
use crate::model::rope::{RopeScaling, RopeStyle};
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family = Family { architecture: "mistral3", implements: &["yarn"], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    keys.refuse_window()?;
    let plain = keys.attention()?;
    let mut rope = keys.rope(RopeStyle::Adjacent, plain.key)?;
    let mut temperature = None;
    if let RopeScaling::Yarn(yarn) = &mut rope.scaling {
        // The file names the part of the magnitude that scores have anyway.
        yarn.magnitude /= 1.0 + 0.1 * keys.number("rope.scaling.yarn_log_multiplier")? * yarn.factor.ln();
        let scale = keys.bound("attention.temperature_scale")?;
        temperature = scale.map(|scale| Temperature { scale, length: yarn.original_context, first: 0 });
    }
    let layer = LayerSpec::new(
        Mixer::Attention(AttentionSpec { temperature, ..plain }),
        FeedForward::Dense(keys.dense()?),
        keys.norms()?,
    );
    keys.uniform(rope, layer)
}
