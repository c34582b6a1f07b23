//! Gemma 4: four norms a layer and norms of heads, also of values; heads of another width in layers without a window,
//! whose keys and values are one product in some models; a factor of each layer's output. The 26B-A4B has experts
//! beside the dense network, all with norms of their own. E2B and E4B, which have embeddings by layer, are refused.

use super::Family;
use crate::model::error::UnsupportedModel;
use crate::model::feed_forward::{Activation, DenseSpec, ExpertsSpec, FeedForward, Routing, SharedSpec};
use crate::model::keys::{HEAD_WIDTH_MAX, Keys, WIDTH_MAX};
use crate::model::layer_role::LayerRole;
use crate::model::mixer::{AttentionSpec, Mixer, QueryKeyNorm, Window};
use crate::model::rope::{RopeSpec, RopeStyle};
use crate::model::spec::{EmbeddingSpec, HeadSpec, LayerSpec, ModelSpec, NormSpec};
use crate::model::tensors::Presence;

pub(super) const FAMILY: Family = Family {
    architecture: "gemma4",
    implements: &["expert_count", "final_logit_softcapping"],
    names: &[
        (LayerRole::SharedGate, "ffn_gate.weight"),
        (LayerRole::SharedUp, "ffn_up.weight"),
        (LayerRole::SharedDown, "ffn_down.weight"),
    ],
    read,
};

/// Base of the rotary embedding in layers with a window, in files that do not name it.
const BASE_IN_WINDOW: f32 = 10_000.0;
/// Index of the rotary embedding of layers without a window, the first in the model's.
const GLOBAL: usize = 0;
/// Index of that of layers with a window.
const IN_WINDOW: usize = 1;

fn read(keys: &Keys<'_>) -> Result<ModelSpec, UnsupportedModel> {
    for key in ["embedding_length_per_layer_input", "attention.shared_kv_layers"] {
        let found = keys.count(key)?;
        if found > 0 {
            let expected = "0, as the embeddings by layer and the shared keys of E2B and E4B are not implemented";
            return Err(keys.wrong(key, expected.to_owned(), found));
        }
    }
    let (layers, hidden) = (keys.layers()?, keys.hidden()?);
    let in_window = keys.flags("attention.sliding_window_pattern", layers)?;
    let kv_heads = keys.sizes("attention.head_count_kv", layers, WIDTH_MAX)?;
    let dense = DenseSpec { activation: Activation::Gelu, ..keys.dense()? };
    let norms = NormSpec { after: true, ..keys.norms()? };
    let experts = experts(keys, dense)?;
    let mut specs = Vec::with_capacity(layers);
    for (index, (in_window, kv_heads)) in in_window.into_iter().zip(kv_heads).enumerate() {
        let shared_key_value = keys.format(index, LayerRole::Value).is_none();
        let attention = AttentionSpec { shared_key_value, ..attention(keys, in_window, kv_heads)? };
        let feed_forward = experts(index).map_or(FeedForward::Dense(dense), FeedForward::Experts);
        let output_scale = keys.format(index, LayerRole::OutputScale).is_some();
        specs.push(LayerSpec { output_scale, ..LayerSpec::new(Mixer::Attention(attention), feed_forward, norms) });
    }
    let model = keys.model(ropes(keys)?, specs)?;
    let head = HeadSpec { softcap: keys.bound("final_logit_softcapping")?, ..keys.head()? };
    let embedding = EmbeddingSpec { scale: (hidden as f32).sqrt(), ..model.embedding };
    Ok(ModelSpec { embedding, head: Some(head), ..model })
}

/// The attention of a layer.
fn attention(keys: &Keys<'_>, in_window: bool, kv_heads: usize) -> Result<AttentionSpec, UnsupportedModel> {
    let suffix = if in_window { "_swa" } else { "" };
    let width = |part: &str| keys.size(&format!("attention.{part}_length{suffix}"), HEAD_WIDTH_MAX);
    let heads = keys.size("attention.head_count", WIDTH_MAX)?;
    let (window, rope) = if in_window { (keys.window()?, IN_WINDOW) } else { (Window::All, GLOBAL) };
    Ok(AttentionSpec {
        window,
        rope: Some(rope),
        score_divisor: 1.0,
        query_key_norm: QueryKeyNorm::Head,
        value_norm: true,
        ..keys.attention_of(heads, kv_heads, width("key")?, width("value")?)?
    })
}

/// The rotary embeddings. That of layers without a window has divisors, which leave a part of each head as it is.
fn ropes(keys: &Keys<'_>) -> Result<Vec<RopeSpec>, UnsupportedModel> {
    let global = keys.rope(RopeStyle::Halves, keys.size("attention.key_length", HEAD_WIDTH_MAX)?)?;
    let global = RopeSpec { factors: Presence::Required, ..global };
    let key = keys.size("attention.key_length_swa", HEAD_WIDTH_MAX)?;
    let dimensions = keys.size_or("rope.dimension_count_swa", key, HEAD_WIDTH_MAX)?;
    if dimensions > key || !dimensions.is_multiple_of(2) {
        let expected = format!("an even number of at most the head's {key} dimensions");
        return Err(keys.wrong("rope.dimension_count_swa", expected, dimensions));
    }
    let in_window = keys.plain_rope(global, "rope.freq_base_swa", BASE_IN_WINDOW)?;
    Ok(vec![global, RopeSpec { dimensions, ..in_window }])
}

/// The experts of each layer, `None` in a dense one.
fn experts(keys: &Keys<'_>, dense: DenseSpec) -> Result<impl Fn(usize) -> Option<ExpertsSpec>, UnsupportedModel> {
    let experts = keys.experts()?.map(|experts| ExpertsSpec {
        activation: Activation::Gelu,
        routing: Routing { normalise: true, ..experts.routing },
        own_norms: true,
        shared: Some(SharedSpec { dense, gated: false }),
        ..experts
    });
    Ok(move |index| {
        let fused = keys.format(index, LayerRole::ExpertGatesUps).is_some();
        let scales = keys.format(index, LayerRole::ExpertScales).is_some();
        experts.filter(|_| keys.format(index, LayerRole::Router).is_some()).map(|experts| ExpertsSpec {
            fused,
            scales,
            ..experts
        })
    })
}
