//! DeepSeek-V2 and V3 and models with the same arithmetic: latent attention, a few dense layers first, then experts
//! with a network beside them. The kinds differ in the compression of queries and in the choice of experts.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{ExpertsSpec, FeedForward, RouterScore, Routing};
use crate::model::keys::{HEAD_WIDTH_MAX, Keys, WIDTH_MAX};
use crate::model::layer_role::LayerRole;
use crate::model::mixer::{LatentSpec, Mixer};
use crate::model::rope::{RopeScaling, RopeSpec, RopeStyle};
use crate::model::spec::{LayerSpec, ModelSpec};

pub(super) const FAMILY: Family =
    Family { architecture: "deepseek2", implements: &["expert_count", "expert_group_count", "yarn"], names: &[], read };

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    let (latent, rope) = latent(keys)?;
    let (dense, experts, norms) = (keys.dense()?, experts(keys)?, keys.norms()?);
    let dense_layers = keys.count("leading_dense_block_count")? as usize;
    let layer = |index: usize| {
        LayerSpec::new(
            Mixer::Latent(LatentSpec { joint: keys.format(index, LayerRole::KeyValueUp), ..latent }),
            if index < dense_layers { FeedForward::Dense(dense) } else { FeedForward::Experts(experts) },
            norms,
        )
    };
    keys.model(vec![rope], (0..keys.layers()?).map(layer).collect())
}

fn latent(keys: &Keys<'_>) -> Result<(LatentSpec, RopeSpec), UnsupportedModel> {
    let heads = keys.size("attention.head_count", WIDTH_MAX)?;
    let rotated = keys.size("rope.dimension_count", HEAD_WIDTH_MAX)?;
    // Files that say so keep the widths of the compressed rows under the usual keys.
    let split = keys.count("attention.key_length_mla")? > 0;
    let (key, value) = if split { ("key_length_mla", "value_length_mla") } else { ("key_length", "value_length") };
    let key = keys.size(&format!("attention.{key}"), HEAD_WIDTH_MAX)?;
    let value = keys.size(&format!("attention.{value}"), HEAD_WIDTH_MAX)?;
    if key <= rotated || heads * key.max(value) > WIDTH_MAX as usize {
        let expected = format!("more than the {rotated} rotated values, and heads in {WIDTH_MAX} values");
        return Err(keys.wrong("attention.key_length", expected, key));
    }
    let mut rope = keys.rope(RopeStyle::Adjacent, rotated)?;
    let mut score_divisor = (key as f32).sqrt();
    if let RopeScaling::Yarn(yarn) = &mut rope.scaling {
        // The magnitude is applied to whole scores, of the values that are not rotated as well.
        let magnitude = 1.0 + keys.number("rope.scaling.yarn_log_multiplier")? * yarn.factor.ln();
        (yarn.magnitude, score_divisor) = (1.0, score_divisor / (magnitude * magnitude));
    }
    let query_rank = match keys.count("attention.q_lora_rank")? {
        0 => None,
        _ => Some(keys.size("attention.q_lora_rank", WIDTH_MAX)?),
    };
    let latent = LatentSpec {
        heads,
        query_rank,
        rank: keys.size("attention.kv_lora_rank", LATENT_WIDTH_MAX)?,
        plain: key - rotated,
        rotated,
        value,
        rope: 0,
        score_divisor,
        joint: None,
    };
    Ok((latent, rope))
}

/// Largest accepted number of compressed values of a token, eight times that of the known models.
const LATENT_WIDTH_MAX: u32 = 4096;

fn experts(keys: &Keys<'_>) -> Result<ExpertsSpec, UnsupportedModel> {
    let experts = keys.required_experts()?;
    // Older files do not name the scores: they are DeepSeek-V2's.
    let score = keys.router_score(RouterScore::Softmax)?;
    let groups = keys.expert_groups(&experts)?;
    let routing = Routing {
        score,
        normalise: keys.flag("expert_weights_norm")?,
        scale: keys.positive("expert_weights_scale", Some(1.0))?,
        groups,
        weigh_inputs: false,
    };
    let shared = keys.shared_experts(experts.width)?;
    Ok(ExpertsSpec { routing, shared, selection_bias: score == RouterScore::Sigmoid, ..experts })
}
