//! gpt-oss: a sink beside the scores of each head, a window in every second layer, biases everywhere, and experts with
//! a clamped SwiGLU.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{Activation, ExpertsSpec, FeedForward, RouterScore, Routing};
use crate::model::keys::Keys;
use crate::model::layer_role::LayerRole;
use crate::model::mixer::{AttentionSpec, Mixer, Window};
use crate::model::rope::{RopeScaling, RopeStyle};
use crate::model::spec::{LayerSpec, ModelSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family = Family {
    architecture: "gpt-oss",
    implements: &["expert_count", "yarn"],
    names: &[(LayerRole::FeedForwardNorm, "post_attention_norm.weight")],
    read,
};

/// The constants of its activation, which files do not name.
const ACTIVATION: Activation = Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let attention = AttentionSpec { biases: Presence::Required, output_bias: true, sinks: true, ..keys.attention()? };
    let experts = keys.required_experts()?;
    let routing = Routing { score: RouterScore::SoftmaxOfChosen, ..experts.routing };
    let experts = ExpertsSpec { routing, activation: ACTIVATION, biases: true, ..experts };
    let (window, norms) = (keys.window()?, keys.norms()?);
    let layer = |index: usize| {
        let window = if index.is_multiple_of(2) { window } else { Window::All };
        LayerSpec::new(Mixer::Attention(AttentionSpec { window, ..attention }), FeedForward::Experts(experts), norms)
    };
    let mut rope = keys.rope(RopeStyle::Halves, attention.key)?;
    if let RopeScaling::Yarn(yarn) = &mut rope.scaling {
        yarn.whole_pairs = false;
    }
    keys.model(vec![rope], (0..keys.layers()?).map(layer).collect())
}
