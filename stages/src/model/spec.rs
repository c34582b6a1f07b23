//! A model as data: its embedding, its layers and its output head.

use schema::record::{KvKinds, KvType};

use super::error::UnsupportedModel;
use super::families::{self, Family};
use super::feed_forward::FeedForward;
use super::mixer::Mixer;
use super::pooling_type::PoolingType;
use super::rope::RopeSpec;
use crate::checkpoint::Header;

/// The checked sizes and constants of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The family that read it. It names the tensors.
    pub family: &'static Family,
    /// Width of the residual stream, in values.
    pub hidden: usize,
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Longest sequence, in tokens.
    pub context_tokens: u32,
    /// The way in which the file says that texts are embedded.
    pub pooling_type: PoolingType,
    /// The rotary embeddings. Layers name theirs by its index.
    pub ropes: Vec<RopeSpec>,
    /// Turns tokens into the first layer's rows.
    pub embedding: EmbeddingSpec,
    /// The layers, at least one.
    pub layers: Vec<LayerSpec>,
    /// Layers of the file that come after these, and are left out: they would predict further tokens.
    pub further_layers: u32,
    /// Turns the last layer's rows into logits.
    pub head: HeadSpec,
}

/// The embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbeddingSpec {
    /// Factor of a token's row.
    pub scale: f32,
}

/// The output head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSpec {
    /// Epsilon of its norm.
    pub norm_epsilon: f32,
    /// Factor of logits.
    pub scale: f32,
    /// Bound that logits are bent to, by `bound * tanh(logit / bound)`.
    pub softcap: Option<f32>,
}

/// One layer: a mixer, which combines positions, and a feed-forward network, which does not.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Combines a position with those before it.
    pub mixer: Mixer,
    /// Computes each position by itself.
    pub feed_forward: FeedForward,
    /// The norms around both.
    pub norms: NormSpec,
    /// Factor of what each of both adds to the residual stream.
    pub residual_scale: f32,
    /// True if a tensor is the factor of the layer's whole output.
    pub output_scale: bool,
}

// === impl LayerSpec ===

impl LayerSpec {
    /// A layer of these parts, without factors.
    pub fn new(mixer: Mixer, feed_forward: FeedForward, norms: NormSpec) -> Self {
        Self { mixer, feed_forward, norms, residual_scale: 1.0, output_scale: false }
    }
}

/// The norms of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// Epsilon that norms add to the mean square.
    pub epsilon: f32,
    /// True if the input of each part is normalised.
    pub before: bool,
    /// True if the term that each part adds to the residual stream is normalised.
    pub after: bool,
}

// === impl ModelSpec ===

impl ModelSpec {
    /// Reads and checks the metadata of a model file.
    ///
    /// # Errors
    /// [`UnsupportedModel`] for an unknown architecture, a feature that is not implemented, or a value that is out of
    /// range.
    pub fn read(header: &Header) -> Result<Self, UnsupportedModel> {
        families::read(header)
    }

    /// Number of layers.
    pub fn layer_count(&self) -> u32 {
        self.layers.len() as u32
    }

    /// The kinds of its layers.
    pub fn kv_kinds(&self) -> KvKinds {
        KvKinds::of(self.layers.iter().map(|layer| layer.mixer.window_tokens()))
    }

    /// The longest sequence in a room for `kv_tokens` tokens, in tokens.
    pub fn sequence_tokens_max(&self, kv_tokens: u32) -> u32 {
        let kinds = self.kv_kinds();
        self.context_tokens.min(kinds.sequence_tokens_max(kinds.pool(kv_tokens)))
    }

    /// Checks that the keys and values of every layer can be stored as `kv_type`.
    ///
    /// # Errors
    /// [`UnsupportedModel::KvBlocks`] when a head's key or value does not fill whole blocks of `q8_0`.
    pub fn check_kv(&self, kv_type: KvType) -> Result<(), UnsupportedModel> {
        self.layers.iter().try_for_each(|layer| layer.mixer.check_kv(kv_type))
    }
}
