//! Llama 4, text: chunks in three of four layers, with rotation and norms of heads without weights; the fourth sees all
//! tokens, without positions, and its scores grow with the position. In every layer or every second, experts that are
//! chosen by logits and whose inputs are weighed by sigmoid, with a network beside them.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{ExpertsSpec, FeedForward, RouterScore, Routing};
use crate::model::keys::{Keys, LAYERS_MAX};
use crate::model::mixer::{AttentionSpec, Mixer, QueryKeyNorm, Temperature, Window};
use crate::model::rope::RopeStyle;
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family = Family { architecture: "llama4", implements: &["expert_count"], names: &[], read };

/// Tokens of a chunk, and those after which scores grow, in files that do not name them: those of all known models.
const CHUNK: usize = 8192;
/// Growth of scores, in files that do not name it.
const TEMPERATURE_SCALE: f32 = 0.1;
/// Every layer of this number, counted from 1, sees all tokens, in files that do not name another.
const WITHOUT_POSITIONS: usize = 4;
/// Number of experts of the model whose heads have no norms (Maverick). No key says so.
const EXPERTS_WITHOUT_NORMS: usize = 128;

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let plain = keys.attention()?;
    let experts = keys.required_experts()?;
    let (routing, shared) = (experts.routing, Some(keys.shared(experts.width, false)?));
    let routing = Routing { score: RouterScore::SigmoidOfChosen, weigh_inputs: true, ..routing };
    let experts = ExpertsSpec { routing, shared, ..experts };
    let (dense, norms, step) = (keys.dense()?, keys.norms()?, keys.moe_layer_step()?);
    let (chunked, global) = attention(keys, plain, experts.count)?;
    let period = keys.size_or("attention.sliding_window_pattern", WITHOUT_POSITIONS, LAYERS_MAX)?;
    let layer = |index: usize| {
        let attention = if (index + 1).is_multiple_of(period) { global } else { chunked };
        let feed_forward =
            if (index + 1).is_multiple_of(step) { FeedForward::Experts(experts) } else { FeedForward::Dense(dense) };
        LayerSpec::new(Mixer::Attention(attention), feed_forward, norms)
    };
    let rope = keys.rope(RopeStyle::Adjacent, plain.key)?;
    keys.model(vec![rope], (0..keys.layers()?).map(layer).collect())
}

/// The attention of layers with chunks, and of those that see all tokens. A window of 0 says that the model has neither
/// chunks nor layers without positions.
fn attention(
    keys: &Keys<'_>,
    plain: AttentionSpec,
    experts: usize,
) -> Result<(AttentionSpec, AttentionSpec), UnsupportedModel> {
    let with_norms = experts != EXPERTS_WITHOUT_NORMS;
    let query_key_norm = if with_norms { QueryKeyNorm::UnitHead } else { QueryKeyNorm::None };
    let rotated = AttentionSpec { query_key_norm, norm_after_rope: true, ..plain };
    if keys.is_zero("attention.sliding_window")? {
        return Ok((rotated, rotated));
    }
    let context = u32::MAX;
    let chunk = keys.size_or("attention.sliding_window", CHUNK, context)? as u32;
    let length = keys.size_or("attention.temperature_length", CHUNK, context)? as u32;
    let scale = keys.positive("attention.temperature_scale", Some(TEMPERATURE_SCALE))?;
    let chunked = AttentionSpec { window: Window::Chunk(chunk), ..rotated };
    let temperature = Some(Temperature { scale, length, first: 1 });
    Ok((chunked, AttentionSpec { rope: None, temperature, ..plain }))
}
