//! The metadata keys under an architecture's prefix, each read with its legal range. Knows what keys mean in every
//! family, not which family has them.

use std::ops::RangeInclusive;

use super::attention_keys::CAUSAL;
use super::error::UnsupportedModel;
use super::feed_forward::{Activation, DenseSpec};
use super::layer_role::LayerRole;
use super::pooling_type::PoolingType;
use super::rope::RopeSpec;
use super::spec::{AddedRows, EmbeddingSpec, HeadSpec, LayerSpec, ModelSpec, NormSpec};
use super::{EMBEDDING, Family, TOKEN_TYPES};
use crate::checkpoint::Header;
use crate::format::Format;

/// Largest accepted width (hidden, feed-forward, heads times dimensions), in values: about thirty times that of the
/// largest known model, and small enough that the product of two widths is far from overflow.
pub(super) const WIDTH_MAX: u32 = 1 << 20;
/// Largest accepted size of an attention head, in values.
pub(super) const HEAD_WIDTH_MAX: u32 = 1024;
/// Largest accepted number of layers: eight times that of the largest known model.
pub(super) const LAYERS_MAX: u32 = 1024;
/// Least and largest accepted number of an epsilon, a base, a scale or a factor: far beyond those of known models, and
/// such that no product, square or reciprocal of a few of them is beyond single precision.
const NUMBER_MIN: f32 = 1e-12;
const NUMBER_MAX: f32 = 1e12;

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
    pub(super) header: &'a Header,
    pub(super) family: &'static Family,
}

// === impl Keys ===

impl<'a> Keys<'a> {
    /// The keys of `family` in a file.
    pub(super) fn new(header: &'a Header, family: &'static Family) -> Self {
        Self { header, family }
    }

    pub(super) fn name(&self, suffix: &str) -> String {
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

    /// The positive number under the key `suffix`.
    pub(super) fn positive(&self, suffix: &str, default: Option<f32>) -> Result<f32, UnsupportedModel> {
        let found = match (self.header.metadata.get_f32(&self.name(suffix))?, default) {
            (Some(found), _) | (None, Some(found)) => found,
            (None, None) => self.header.metadata.f32(&self.name(suffix))?,
        };
        let legal = (NUMBER_MIN..=NUMBER_MAX).contains(&found);
        let expected = || format!("a positive number from {NUMBER_MIN:e} to {NUMBER_MAX:e}");
        if legal { Ok(found) } else { Err(self.wrong(suffix, expected(), found)) }
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
        let groups = self.count("expert_group_count")?;
        if groups > 1 && !self.family.implements.contains(&"expert_group_count") {
            let expected = "0 or 1, as groups of experts are not implemented".to_owned();
            return Err(self.wrong("expert_group_count", expected, groups));
        }
        let causal = self.header.metadata.bool_or(&self.name(CAUSAL), true)?;
        if !causal && !self.family.implements.contains(&CAUSAL) {
            let expected = format!("true, as {} is computed with causal attention only", self.family);
            return Err(self.wrong(CAUSAL, expected, false));
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
        let (embedding, head) = (EmbeddingSpec { scale: 1.0, added: None }, Some(self.head()?));
        self.model_with(embedding, ropes, layers, head)
    }

    /// A model of equal layers that makes hidden states alone. The rows of its first layer are sums with those of token
    /// types, and with learned ones of positions if it has such.
    pub(super) fn encoder(
        &self,
        ropes: Vec<RopeSpec>,
        layer: LayerSpec,
        positions: bool,
    ) -> Result<ModelSpec, UnsupportedModel> {
        let types = match self.header.tensor(TOKEN_TYPES).map(|table| table.dims.as_slice()) {
            Some([_, rows]) => usize::try_from(*rows).unwrap_or(0).max(1),
            // The check of tensors says what is wrong.
            _ => 1,
        };
        let added = AddedRows { positions, types, norm_epsilon: layer.norms.epsilon };
        let embedding = EmbeddingSpec { scale: 1.0, added: Some(added) };
        let layers = self.layers()?;
        self.model_with(embedding, ropes, vec![layer; layers], None)
    }

    fn model_with(
        &self,
        embedding: EmbeddingSpec,
        ropes: Vec<RopeSpec>,
        layers: Vec<LayerSpec>,
        head: Option<HeadSpec>,
    ) -> Result<ModelSpec, UnsupportedModel> {
        Ok(ModelSpec {
            family: self.family,
            hidden: self.hidden()?,
            vocabulary: vocabulary(self.header)?,
            context_tokens: self.context_tokens()?,
            pooling_type: self.pooling_type()?,
            ropes,
            embedding,
            further_layers: self.count(FURTHER_LAYERS)?,
            layers,
            head,
        })
    }

    /// The output head of the usual keys.
    pub(super) fn head(&self) -> Result<HeadSpec, UnsupportedModel> {
        Ok(HeadSpec { norm_epsilon: self.norms()?.epsilon, scale: 1.0, softcap: None })
    }

    /// The way in which texts are embedded.
    fn pooling_type(&self) -> Result<PoolingType, UnsupportedModel> {
        const KEY: &str = "pooling_type";
        let found = self.header.metadata.u32_or(&self.name(KEY), 0)?;
        PoolingType::of_number(found).ok_or_else(|| self.wrong(KEY, PoolingType::expected(), found))
    }

    /// Longest sequence.
    pub(super) fn context_tokens(&self) -> Result<u32, UnsupportedModel> {
        Ok(self.size("context_length", u32::MAX)? as u32)
    }

    /// The norms of every layer: one before each part.
    pub(super) fn norms(&self) -> Result<NormSpec, UnsupportedModel> {
        let epsilon = self.positive("attention.layer_norm_rms_epsilon", None)?;
        Ok(NormSpec { epsilon, before: true, after: false, of_sums: false })
    }

    /// The norms of every layer of an encoder: one of the residual stream after each part.
    pub(super) fn norms_of_sums(&self) -> Result<NormSpec, UnsupportedModel> {
        let epsilon = self.positive("attention.layer_norm_epsilon", None)?;
        Ok(NormSpec { epsilon, before: false, after: false, of_sums: true })
    }

    /// A gated network with SiLU.
    pub(super) fn dense(&self) -> Result<DenseSpec, UnsupportedModel> {
        Ok(DenseSpec {
            width: self.size("feed_forward_length", WIDTH_MAX)?,
            activation: Activation::Silu,
            fused: false,
        })
    }

    /// The flag of each of `count` layers, under the key `suffix`.
    pub(super) fn flags(&self, suffix: &str, count: usize) -> Result<Vec<bool>, UnsupportedModel> {
        let mut flags = self.header.metadata.bool_array(&self.name(suffix))?;
        if flags.len() < count {
            return Err(self.wrong(
                suffix,
                format!("a flag for each of {count} layers"),
                format!("{} flags", flags.len()),
            ));
        }
        flags.truncate(count);
        Ok(flags)
    }

    /// The size of each of `count` layers, from 1 to `most`: one for all, or one for each, under the key `suffix`.
    pub(super) fn sizes(&self, suffix: &str, count: usize, most: u32) -> Result<Vec<usize>, UnsupportedModel> {
        self.counts(suffix, count, 1..=most)
    }

    /// The number of each of `count` layers, of `legal`: one for all, or one for each, under the key `suffix`.
    pub(super) fn counts(
        &self,
        suffix: &str,
        count: usize,
        legal: RangeInclusive<u32>,
    ) -> Result<Vec<usize>, UnsupportedModel> {
        let Ok(mut counts) = self.header.metadata.u32_array(&self.name(suffix)) else {
            return Ok(vec![self.size(suffix, *legal.end())?; count]);
        };
        if counts.len() < count {
            return Err(self.wrong(
                suffix,
                format!("a number for each of {count} layers"),
                format!("{} numbers", counts.len()),
            ));
        }
        counts.truncate(count);
        if let Some(found) = counts.iter().find(|found| !legal.contains(*found)) {
            return Err(self.wrong(suffix, format!("{} to {} in each layer", legal.start(), legal.end()), found));
        }
        Ok(counts.into_iter().map(|count| count as usize).collect())
    }

    /// True if the file has the key `suffix` with the value 0.
    pub(super) fn is_zero(&self, suffix: &str) -> Result<bool, UnsupportedModel> {
        Ok(self.header.metadata.get_u32(&self.name(suffix))? == Some(0))
    }

    /// The bound under the key `suffix`: `None` without the key, or if it is 0.
    pub(super) fn bound(&self, suffix: &str) -> Result<Option<f32>, UnsupportedModel> {
        Ok(Some(self.number(suffix)?).filter(|bound| *bound > 0.0))
    }

    /// A number from 0 on, 0 without the key.
    pub(super) fn number(&self, suffix: &str) -> Result<f32, UnsupportedModel> {
        let found = self.header.metadata.get_f32(&self.name(suffix))?.unwrap_or(0.0);
        let legal = (0.0..=NUMBER_MAX).contains(&found);
        if legal { Ok(found) } else { Err(self.wrong(suffix, format!("a number from 0 to {NUMBER_MAX:e}"), found)) }
    }

    /// The flag under the key `suffix`, false without the key.
    pub(super) fn flag(&self, suffix: &str) -> Result<bool, UnsupportedModel> {
        self.flag_or(suffix, false)
    }

    /// The same with a value for files without the key.
    pub(super) fn flag_or(&self, suffix: &str, default: bool) -> Result<bool, UnsupportedModel> {
        Ok(self.header.metadata.bool_or(&self.name(suffix), default)?)
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
