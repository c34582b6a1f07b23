//! The metadata keys under an architecture's prefix, each read with its legal range. Knows what keys mean in every
//! family, not which family has them.

use super::error::UnsupportedModel;
use super::feed_forward::{Activation, DenseSpec, ExpertsSpec, RouterScore, Routing, SharedSpec};
use super::layer_role::LayerRole;
use super::mixer::{AttentionSpec, QueryKeyNorm};
use super::pooling_type::PoolingType;
use super::rope::{RopeScaling, RopeSpec, RopeStyle, YarnScaling};
use super::spec::{EmbeddingSpec, HeadSpec, LayerSpec, ModelSpec, NormSpec};
use super::tensors::Presence;
use super::{EMBEDDING, Family};
use crate::format::Format;
use crate::gguf::Header;

/// Largest accepted width (hidden, feed-forward, heads times dimensions), in values: about thirty times that of the
/// largest known model, and small enough that the product of two widths is far from overflow.
pub(super) const WIDTH_MAX: u32 = 1 << 20;
/// Largest accepted size of an attention head, in values.
pub(super) const HEAD_WIDTH_MAX: u32 = 1024;
/// Largest accepted number of layers: eight times that of the largest known model.
const LAYERS_MAX: u32 = 1024;
/// Largest accepted number of experts in a layer: more than twice that of the largest known model.
const EXPERTS_MAX: u32 = 1024;
/// Largest accepted number of experts that a row chooses, twice that of the largest known model. A tile has as many
/// rows of experts for each of its own.
const EXPERTS_CHOSEN_MAX: u32 = 32;

/// The key of the number of layers that predict further tokens. They come last, and are left out.
const FURTHER_LAYERS: &str = "nextn_predict_layers";

/// Keys that change the arithmetic, each with the only value that a family accepts which does not implement the key.
const ARITHMETIC: [(&str, f32); 9] = [
    ("logit_scale", 1.0),
    ("attn_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
    ("router_logit_softcapping", 0.0),
    ("embedding_scale", 1.0),
    ("residual_scale", 1.0),
    ("attention.scale", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
];

/// The keys of a file under its architecture's prefix.
pub(super) struct Keys<'a> {
    header: &'a Header,
    family: &'static Family,
}

// === impl Keys ===

impl<'a> Keys<'a> {
    /// The keys of `family` in a file.
    pub(super) fn new(header: &'a Header, family: &'static Family) -> Self {
        Self { header, family }
    }

    fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.family.architecture)
    }

    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are given at the call")]
    pub(super) fn wrong(&self, suffix: &str, expected: String, found: impl ToString) -> UnsupportedModel {
        UnsupportedModel::Value { key: self.name(suffix), expected, found: found.to_string() }
    }

    /// The size under the key `suffix`, from 1 to `most`.
    pub(super) fn size(&self, suffix: &str, most: u32) -> Result<usize, UnsupportedModel> {
        match self.header.metadata.u32(&self.name(suffix))? {
            size if (1..=most).contains(&size) => Ok(size as usize),
            size => Err(self.wrong(suffix, format!("1 to {most}"), size)),
        }
    }

    /// The same with a value for files without the key.
    pub(super) fn size_or(&self, suffix: &str, default: usize, most: u32) -> Result<usize, UnsupportedModel> {
        if self.header.metadata.get(&self.name(suffix)).is_some() || !(1..=most as usize).contains(&default) {
            return self.size(suffix, most);
        }
        Ok(default)
    }

    /// The positive, finite number under the key `suffix`.
    pub(super) fn positive(&self, suffix: &str, default: Option<f32>) -> Result<f32, UnsupportedModel> {
        let found = match (self.header.metadata.get_f32(&self.name(suffix))?, default) {
            (Some(found), _) | (None, Some(found)) => found,
            (None, None) => self.header.metadata.f32(&self.name(suffix))?,
        };
        let legal = found.is_finite() && found > 0.0;
        if legal { Ok(found) } else { Err(self.wrong(suffix, "a positive number".to_owned(), found)) }
    }

    /// The count under the key `suffix`, 0 without the key.
    pub(super) fn count(&self, suffix: &str) -> Result<u32, UnsupportedModel> {
        Ok(self.header.metadata.u32_or(&self.name(suffix), 0)?)
    }

    /// Refuses the keys that change the arithmetic in ways that the family does not implement.
    pub(super) fn refuse_unimplemented(&self) -> Result<(), UnsupportedModel> {
        for (suffix, neutral) in ARITHMETIC {
            let found = self.header.metadata.get_f32(&self.name(suffix))?.unwrap_or(neutral);
            if found != neutral && !self.family.implements.contains(&suffix) {
                let expected = format!("{neutral} or no such key, as others are not implemented");
                return Err(self.wrong(suffix, expected, found));
            }
        }
        let experts = self.count("expert_count")?;
        if experts > 0 && !self.family.implements.contains(&"expert_count") {
            let expected = "0, as mixtures of experts are not implemented".to_owned();
            return Err(self.wrong("expert_count", expected, experts));
        }
        if !self.header.metadata.bool_or(&self.name("attention.causal"), true)? {
            let expected = "true, as only causal attention is implemented".to_owned();
            return Err(self.wrong("attention.causal", expected, false));
        }
        Ok(())
    }

    /// Width of the residual stream.
    pub(super) fn hidden(&self) -> Result<usize, UnsupportedModel> {
        self.size("embedding_length", WIDTH_MAX)
    }

    /// A model of equal layers with one rotary embedding.
    pub(super) fn uniform(&self, rope: RopeSpec, layer: LayerSpec) -> Result<ModelSpec, UnsupportedModel> {
        let layers = self.layers()?;
        self.model(vec![rope], vec![layer; layers])
    }

    /// A model of these layers.
    pub(super) fn model(&self, ropes: Vec<RopeSpec>, layers: Vec<LayerSpec>) -> Result<ModelSpec, UnsupportedModel> {
        Ok(ModelSpec {
            family: self.family,
            hidden: self.hidden()?,
            vocabulary: vocabulary(self.header)?,
            context_tokens: self.context_tokens()?,
            pooling_type: self.pooling_type()?,
            ropes,
            embedding: EmbeddingSpec { scale: 1.0 },
            further_layers: self.count(FURTHER_LAYERS)?,
            layers,
            head: HeadSpec { norm_epsilon: self.norms()?.epsilon, scale: 1.0, softcap: None },
        })
    }

    /// The way in which texts are embedded.
    fn pooling_type(&self) -> Result<PoolingType, UnsupportedModel> {
        const KEY: &str = "pooling_type";
        let found = self.header.metadata.u32_or(&self.name(KEY), 0)?;
        PoolingType::of_number(found).ok_or_else(|| self.wrong(KEY, PoolingType::expected(), found))
    }

    /// Longest sequence.
    fn context_tokens(&self) -> Result<u32, UnsupportedModel> {
        Ok(self.size("context_length", u32::MAX)? as u32)
    }

    /// The norms of every layer: one before each part.
    pub(super) fn norms(&self) -> Result<NormSpec, UnsupportedModel> {
        let epsilon = self.positive("attention.layer_norm_rms_epsilon", None)?;
        Ok(NormSpec { epsilon, before: true, after: false })
    }

    /// A gated network with SiLU.
    pub(super) fn dense(&self) -> Result<DenseSpec, UnsupportedModel> {
        Ok(DenseSpec {
            width: self.size("feed_forward_length", WIDTH_MAX)?,
            activation: Activation::Silu,
            fused: false,
        })
    }

    /// A mixture of experts of the usual keys, whose weights are the softmax of all logits: `None` in a file without
    /// experts. The metadata may name the width of an expert, or that of dense layers is meant.
    pub(super) fn experts(&self) -> Result<Option<ExpertsSpec>, UnsupportedModel> {
        let count = match self.count("expert_count")? {
            0 => return Ok(None),
            count if count <= EXPERTS_MAX => count as usize,
            count => return Err(self.wrong("expert_count", format!("at most {EXPERTS_MAX}"), count)),
        };
        let width = match self.count("expert_feed_forward_length")? {
            0 => self.size("feed_forward_length", WIDTH_MAX)?,
            _ => self.size("expert_feed_forward_length", WIDTH_MAX)?,
        };
        let routing = Routing { score: RouterScore::Softmax, normalise: false, scale: 1.0, groups: None };
        Ok(Some(ExpertsSpec {
            count,
            chosen: self.size("expert_used_count", EXPERTS_CHOSEN_MAX.min(count as u32))?,
            width,
            activation: Activation::Silu,
            routing,
            selection_bias: false,
            biases: false,
            shared: None,
        }))
    }

    /// The same for a family whose every file has experts.
    pub(super) fn required_experts(&self) -> Result<ExpertsSpec, UnsupportedModel> {
        let experts = self.experts()?;
        experts.ok_or_else(|| self.wrong("expert_count", format!("1 to {EXPERTS_MAX}"), 0))
    }

    /// The network that is as wide as several experts, of which the file names the number: `None` without one.
    pub(super) fn shared_experts(&self, width: usize) -> Result<Option<SharedSpec>, UnsupportedModel> {
        match self.count("expert_shared_count")? {
            0 => Ok(None),
            _ => self.shared(width * self.size("expert_shared_count", EXPERTS_MAX)?, false).map(Some),
        }
    }

    /// A network with SiLU beside the experts, with `width` values unless the file names another number.
    pub(super) fn shared(&self, width: usize, gated: bool) -> Result<SharedSpec, UnsupportedModel> {
        let width = self.size_or("expert_shared_feed_forward_length", width, WIDTH_MAX)?;
        Ok(SharedSpec { dense: DenseSpec { width, activation: Activation::Silu, fused: false }, gated })
    }

    /// Attention of the usual keys over all tokens, with the first rotary embedding, without norms of heads and biases.
    pub(super) fn attention(&self) -> Result<AttentionSpec, UnsupportedModel> {
        let hidden = self.hidden()?;
        let heads = self.size("attention.head_count", WIDTH_MAX)?;
        let kv_heads = self.size_or("attention.head_count_kv", heads, WIDTH_MAX)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(self.wrong("attention.head_count_kv", format!("a divisor of the {heads} heads"), kv_heads));
        }
        let key = self.size_or("attention.key_length", hidden / heads, HEAD_WIDTH_MAX)?;
        let value = self.size_or("attention.value_length", key, HEAD_WIDTH_MAX)?;
        if heads * key.max(value) > WIDTH_MAX as usize {
            return Err(self.wrong("attention.head_count", format!("heads of {key} in {WIDTH_MAX} values"), heads));
        }
        Ok(AttentionSpec {
            heads,
            kv_heads,
            key,
            value,
            window: u32::MAX,
            rope: Some(0),
            score_divisor: (key as f32).sqrt(),
            query_key_norm: QueryKeyNorm::None,
            norms: Presence::Required,
            biases: Presence::Refused,
            output_bias: false,
            sinks: false,
            fused: false,
            softcap: None,
            temperature: None,
        })
    }

    /// The window of a family that has one, in a file that names one. Without a window, and if no sequence is longer,
    /// all tokens are attended to.
    pub(super) fn window(&self) -> Result<u32, UnsupportedModel> {
        match self.count("attention.sliding_window")? {
            0 => Ok(u32::MAX),
            window if window >= self.context_tokens()? => Ok(u32::MAX),
            window => Ok(window),
        }
    }

    /// Refuses a window, for a family that has none.
    pub(super) fn refuse_window(&self) -> Result<(), UnsupportedModel> {
        let (window, context_tokens) = (self.window()?, self.context_tokens()?);
        if window == u32::MAX {
            return Ok(());
        }
        let family = self.family;
        let expected = format!("none below the context of {context_tokens}, as {family} has no window here");
        Err(self.wrong("attention.sliding_window", expected, window))
    }

    /// A rotary embedding of another base, without scaling.
    pub(super) fn plain_rope(&self, rope: RopeSpec, suffix: &str, base: f32) -> Result<RopeSpec, UnsupportedModel> {
        Ok(RopeSpec { base: self.positive(suffix, Some(base))?, scaling: RopeScaling::Linear(1.0), ..rope })
    }

    /// The rotary embedding of heads whose keys have `key` values.
    pub(super) fn rope(&self, style: RopeStyle, key: usize) -> Result<RopeSpec, UnsupportedModel> {
        let dimensions = self.size_or("rope.dimension_count", key, HEAD_WIDTH_MAX)?;
        if dimensions > key || !dimensions.is_multiple_of(2) {
            let expected = format!("an even number of at most the head's {key} dimensions");
            return Err(self.wrong("rope.dimension_count", expected, dimensions));
        }
        let base = self.positive("rope.freq_base", Some(10_000.0))?;
        Ok(RopeSpec { dimensions, base, scaling: self.rope_scaling()?, style })
    }

    fn rope_scaling(&self) -> Result<RopeScaling, UnsupportedModel> {
        const KEY: &str = "rope.scaling.type";
        match self.header.metadata.str_or(&self.name(KEY), "none")? {
            // Files without a scaling type may have a linear scale under an older key.
            "none" => Ok(RopeScaling::Linear(self.positive("rope.scale_linear", Some(1.0))?)),
            "linear" => Ok(RopeScaling::Linear(self.positive("rope.scaling.factor", Some(1.0))?)),
            "yarn" if self.family.implements.contains(&"yarn") => Ok(RopeScaling::Yarn(self.yarn()?)),
            // The file stores the factor of each pair in a tensor.
            "llama3" => Ok(RopeScaling::Linear(1.0)),
            other => {
                let yarn = if self.family.implements.contains(&"yarn") { ", yarn" } else { "" };
                Err(self.wrong(KEY, format!("none, linear{yarn} or llama3"), format!("{other:?}")))
            }
        }
    }

    /// YaRN's constants, with its own magnitude of rotated values.
    fn yarn(&self) -> Result<YarnScaling, UnsupportedModel> {
        let factor = self.positive("rope.scaling.factor", None)?;
        let attention_factor = self.positive("rope.scaling.attn_factor", Some(1.0))?;
        Ok(YarnScaling {
            factor,
            original_context: self.size("rope.scaling.original_context_length", u32::MAX)? as u32,
            beta_fast: self.positive("rope.scaling.yarn_beta_fast", Some(32.0))?,
            beta_slow: self.positive("rope.scaling.yarn_beta_slow", Some(1.0))?,
            magnitude: attention_factor * (1.0 + 0.1 * factor.max(1.0).ln()),
            whole_pairs: true,
        })
    }

    /// The bound under the key `suffix`: `None` without the key, or if it is 0.
    pub(super) fn bound(&self, suffix: &str) -> Result<Option<f32>, UnsupportedModel> {
        Ok(Some(self.number(suffix)?).filter(|bound| *bound > 0.0))
    }

    /// A number from 0 on, 0 without the key.
    pub(super) fn number(&self, suffix: &str) -> Result<f32, UnsupportedModel> {
        let found = self.header.metadata.get_f32(&self.name(suffix))?.unwrap_or(0.0);
        let legal = found.is_finite() && found >= 0.0;
        if legal { Ok(found) } else { Err(self.wrong(suffix, "a number from 0 on".to_owned(), found)) }
    }

    /// The flag under the key `suffix`, false without the key.
    pub(super) fn flag(&self, suffix: &str) -> Result<bool, UnsupportedModel> {
        Ok(self.header.metadata.bool_or(&self.name(suffix), false)?)
    }

    /// Number of layers, without those that predict further tokens.
    pub(super) fn layers(&self) -> Result<usize, UnsupportedModel> {
        let (layers, further) = (self.size("block_count", LAYERS_MAX)?, self.count(FURTHER_LAYERS)? as usize);
        let own = layers.checked_sub(further).filter(|own| *own > 0);
        own.ok_or_else(|| self.wrong(FURTHER_LAYERS, format!("fewer than the {layers} layers"), further))
    }

    /// The format of a layer's tensor for `role`. `None` if the layer has none.
    pub(super) fn format(&self, layer: usize, role: LayerRole) -> Option<Format> {
        self.header.tensor(&format!("blk.{layer}.{}", self.family.suffix(role))).map(|tensor| tensor.format)
    }
}

/// Number of rows of the embedding table.
fn vocabulary(header: &Header) -> Result<usize, UnsupportedModel> {
    let wrong = |found: String| UnsupportedModel::Tensor {
        name: EMBEDDING.to_owned(),
        expected: "two dimensions".to_owned(),
        found,
    };
    let table = header.tensor(EMBEDDING).ok_or_else(|| wrong("no such tensor".to_owned()))?;
    match *table.dims.as_slice() {
        [_, rows] if u32::try_from(rows).is_ok() => Ok(rows as usize),
        _ => Err(wrong(format!("{:?}", table.dims))),
    }
}
