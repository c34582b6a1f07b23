//! A model's sizes and constants, read from a file's metadata and checked here, so that other modules need no checks of
//! their own.

use schema::record::KvType;

use crate::gguf::{Header, Metadata};

use super::error::UnsupportedModel;
use super::family::Family;
use super::pooling_type::PoolingType;
use super::rope::Rope;

/// Largest accepted width (hidden, feed-forward, heads times dimensions), in values: about thirty times that of the
/// largest known model, and small enough that the product of two widths is far from overflow.
const WIDTH_MAX: u32 = 1 << 20;
/// Largest accepted size of an attention head, in values.
const HEAD_WIDTH_MAX: u32 = 1024;

/// The checked sizes and constants of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The model's family.
    pub family: Family,
    /// Number of layers.
    pub layers: u32,
    /// Width of the residual stream, in values.
    pub hidden: usize,
    /// Width of the feed-forward layers, in values.
    pub feed_forward: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key-value heads. Divides `heads`.
    pub kv_heads: usize,
    /// Values in a head's key (and query).
    pub key: usize,
    /// Values in a head's value.
    pub value: usize,
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Longest sequence, in tokens.
    pub context_tokens: u32,
    /// Size of the sliding attention window in tokens, the token itself included. `u32::MAX` if there is no window.
    pub window_tokens: u32,
    /// Epsilon that norms add to the mean square.
    pub norm_epsilon: f32,
    /// The way in which the file says that texts are embedded.
    pub pooling_type: PoolingType,
    /// Number of a head's dimensions that RoPE rotates. Even.
    rope_dimensions: usize,
    rope_base: f32,
    rope_divisor: f32,
}

// === impl ModelConfig ===

impl ModelConfig {
    /// Checks that the keys and values of a head can be stored as `kv_type`.
    ///
    /// # Errors
    /// [`UnsupportedModel::KvBlocks`] when a head's key or value does not fill whole blocks of `q8_0`.
    pub fn check_kv(&self, kv_type: KvType) -> Result<(), UnsupportedModel> {
        let whole = |values: usize| values.is_multiple_of(KvType::Q8_BLOCK);
        if kv_type == KvType::F16 || (whole(self.key) && whole(self.value)) {
            return Ok(());
        }
        Err(UnsupportedModel::KvBlocks { key: self.key, value: self.value })
    }

    /// Reads and checks the metadata of a model file.
    ///
    /// # Errors
    /// [`UnsupportedModel`] for an unknown architecture, a feature that is not implemented, or a value that is out of
    /// range.
    pub fn read(header: &Header) -> Result<Self, UnsupportedModel> {
        let metadata = &header.metadata;
        let family = Family::of(metadata.str("general.architecture")?)?;
        let keys = Keys { metadata, architecture: family.architecture() };
        keys.refuse_unimplemented()?;

        let hidden = keys.size("embedding_length", WIDTH_MAX)?;
        let heads = keys.size("attention.head_count", WIDTH_MAX)?;
        let kv_heads = keys.size_or("attention.head_count_kv", heads, WIDTH_MAX)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(keys.wrong("attention.head_count_kv", format!("a divisor of the {heads} heads"), kv_heads));
        }
        let key = keys.size_or("attention.key_length", hidden / heads, HEAD_WIDTH_MAX)?;
        let value = keys.size_or("attention.value_length", key, HEAD_WIDTH_MAX)?;
        if heads * key.max(value) > WIDTH_MAX as usize {
            return Err(keys.wrong("attention.head_count", format!("heads of {key} in {WIDTH_MAX} values"), heads));
        }
        let rope_dimensions = keys.size_or("rope.dimension_count", key, HEAD_WIDTH_MAX)?;
        if rope_dimensions > key || !rope_dimensions.is_multiple_of(2) {
            let expected = format!("an even number of at most the head's {key} dimensions");
            return Err(keys.wrong("rope.dimension_count", expected, rope_dimensions));
        }
        let context_tokens = keys.size("context_length", u32::MAX)? as u32;
        Ok(Self {
            family,
            layers: keys.size("block_count", WIDTH_MAX)? as u32,
            hidden,
            feed_forward: keys.size("feed_forward_length", WIDTH_MAX)?,
            heads,
            kv_heads,
            key,
            value,
            vocabulary: vocabulary(header)?,
            context_tokens,
            window_tokens: keys.window(family, context_tokens)?,
            norm_epsilon: keys.positive("attention.layer_norm_rms_epsilon", None)?,
            pooling_type: keys.pooling_type()?,
            rope_dimensions,
            rope_base: keys.positive("rope.freq_base", Some(10_000.0))?,
            rope_divisor: keys.rope_divisor()?,
        })
    }

    /// The rotary embedding of the model. `factors` are the values of the tensor `rope_freqs.weight`, if the file has
    /// it.
    ///
    /// # Errors
    /// [`UnsupportedModel::Tensor`] when `factors` does not hold one positive factor for each pair of dimensions.
    pub fn rope(&self, factors: Option<&[f32]>) -> Result<Rope, UnsupportedModel> {
        let pairs = self.rope_dimensions / 2;
        if let Some(factors) = factors
            && (factors.len() != pairs || factors.iter().any(|factor| !(factor.is_finite() && *factor > 0.0)))
        {
            let expected = format!("{pairs} positive factors");
            let found = format!("{} values", factors.len());
            return Err(UnsupportedModel::Tensor { name: super::ROPE_FACTORS.to_owned(), expected, found });
        }
        let (base, divisor) = (f64::from(self.rope_base), f64::from(self.rope_divisor));
        Ok(Rope::new(self.rope_dimensions, base, divisor, factors, self.family.rope_style()))
    }

    /// Number of a head's dimension pairs that RoPE rotates.
    pub fn rope_pairs(&self) -> usize {
        self.rope_dimensions / 2
    }

    /// Number of query heads that share a key-value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Values in a row of queries.
    pub fn query_width(&self) -> usize {
        self.heads * self.key
    }

    /// Values in a row of keys.
    pub fn key_width(&self) -> usize {
        self.kv_heads * self.key
    }

    /// Values in a row of attention values (V).
    pub fn value_width(&self) -> usize {
        self.kv_heads * self.value
    }

    /// Values in a row of attention's output.
    pub fn attention_width(&self) -> usize {
        self.heads * self.value
    }
}

/// Number of rows of the embedding table.
fn vocabulary(header: &Header) -> Result<usize, UnsupportedModel> {
    let name = super::EMBEDDING;
    let wrong = |found: String| UnsupportedModel::Tensor {
        name: name.to_owned(),
        expected: "two dimensions".to_owned(),
        found,
    };
    let table = header.tensor(name).ok_or_else(|| wrong("no such tensor".to_owned()))?;
    match *table.dims.as_slice() {
        [_, rows] if u32::try_from(rows).is_ok() => Ok(rows as usize),
        _ => Err(wrong(format!("{:?}", table.dims))),
    }
}

/// The metadata keys under the architecture's prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'static str,
}

/// Keys that change the arithmetic in ways that no supported family uses, each with its only accepted value.
const UNIMPLEMENTED: [(&str, f32); 9] = [
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

// === impl Keys ===

impl Keys<'_> {
    fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture)
    }

    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are given at the call")]
    fn wrong(&self, suffix: &str, expected: String, found: impl ToString) -> UnsupportedModel {
        UnsupportedModel::Value { key: self.name(suffix), expected, found: found.to_string() }
    }

    /// The size under the key `suffix`, from 1 to `most`.
    fn size(&self, suffix: &str, most: u32) -> Result<usize, UnsupportedModel> {
        match self.metadata.u32(&self.name(suffix))? {
            size if (1..=most).contains(&size) => Ok(size as usize),
            size => Err(self.wrong(suffix, format!("1 to {most}"), size)),
        }
    }

    fn size_or(&self, suffix: &str, default: usize, most: u32) -> Result<usize, UnsupportedModel> {
        if self.metadata.get(&self.name(suffix)).is_some() || !(1..=most as usize).contains(&default) {
            return self.size(suffix, most);
        }
        Ok(default)
    }

    fn positive(&self, suffix: &str, default: Option<f32>) -> Result<f32, UnsupportedModel> {
        let found = match (self.metadata.get_f32(&self.name(suffix))?, default) {
            (Some(found), _) | (None, Some(found)) => found,
            (None, None) => self.metadata.f32(&self.name(suffix))?,
        };
        let legal = found.is_finite() && found > 0.0;
        if legal { Ok(found) } else { Err(self.wrong(suffix, "a positive number".to_owned(), found)) }
    }

    fn refuse_unimplemented(&self) -> Result<(), UnsupportedModel> {
        for (suffix, neutral) in UNIMPLEMENTED {
            let found = self.metadata.get_f32(&self.name(suffix))?.unwrap_or(neutral);
            if found != neutral {
                return Err(self.wrong(
                    suffix,
                    format!("{neutral} or no such key, as others are not implemented"),
                    found,
                ));
            }
        }
        let experts = self.metadata.u32_or(&self.name("expert_count"), 0)?;
        if experts > 0 {
            return Err(self.wrong(
                "expert_count",
                "0, as mixtures of experts are not implemented".to_owned(),
                experts,
            ));
        }
        if !self.metadata.bool_or(&self.name("attention.causal"), true)? {
            return Err(self.wrong(
                "attention.causal",
                "true, as only causal attention is implemented".to_owned(),
                false,
            ));
        }
        Ok(())
    }

    fn window(&self, family: Family, context_tokens: u32) -> Result<u32, UnsupportedModel> {
        const KEY: &str = "attention.sliding_window";
        match self.metadata.u32_or(&self.name(KEY), 0)? {
            0 => Ok(u32::MAX),
            window if window >= context_tokens => Ok(u32::MAX),
            window if family.has_sliding_window() => Ok(window),
            window => {
                let expected = format!("none below the context of {context_tokens}, as {family} has no window here");
                Err(self.wrong(KEY, expected, window))
            }
        }
    }

    fn pooling_type(&self) -> Result<PoolingType, UnsupportedModel> {
        const KEY: &str = "pooling_type";
        let found = self.metadata.u32_or(&self.name(KEY), 0)?;
        PoolingType::of_number(found).ok_or_else(|| self.wrong(KEY, PoolingType::expected(), found))
    }

    fn rope_divisor(&self) -> Result<f32, UnsupportedModel> {
        const KEY: &str = "rope.scaling.type";
        match self.metadata.str_or(&self.name(KEY), "none")? {
            // Files without a scaling type may have a linear scale under an older key.
            "none" => self.positive("rope.scale_linear", Some(1.0)),
            "linear" => self.positive("rope.scaling.factor", Some(1.0)),
            // The file stores the factor of each pair in a tensor.
            "llama3" => Ok(1.0),
            other => Err(self.wrong(KEY, "none, linear or llama3".to_owned(), format!("{other:?}"))),
        }
    }
}
