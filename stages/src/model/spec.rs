//! A model as data: its embedding, its layers and its output head.

use schema::record::{KvKinds, KvType, TEXT_BATCH_ROWS_MAX, text_tokens_max};

use super::error::UnsupportedModel;
use super::families::{self, Family};
use super::feed_forward::FeedForward;
use super::mixer::{AttentionSpec, Mixer, Window};
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
    /// Turns the last layer's rows into logits. `None` in a model that makes hidden states alone.
    pub head: Option<HeadSpec>,
}

/// The embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbeddingSpec {
    /// Factor of a token's row.
    pub scale: f32,
    /// The rows that are added to a token's, in a model that does so.
    pub added: Option<AddedRows>,
}

/// The rows that are added to a token's: that of the first type of tokens, and that of its position. The sum is
/// normalised by its mean and variance, with a bias (LayerNorm).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AddedRows {
    /// True if each position has a learned row.
    pub positions: bool,
    /// Number of types of tokens, of which a text has the first.
    pub types: usize,
    /// Epsilon of the norm.
    pub norm_epsilon: f32,
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
    /// True if the residual stream itself is, after each part, by its mean and variance, with a bias (LayerNorm).
    pub of_sums: bool,
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
        self.context_tokens_max().min(kinds.sequence_tokens_max(kinds.pool(kv_tokens)))
    }

    /// The longest sequence that the model computes, in tokens, whatever the room.
    pub fn context_tokens_max(&self) -> u32 {
        if self.is_bidirectional() {
            return self.context_tokens.min(text_tokens_max(self.hidden as u64));
        }
        self.context_tokens
    }

    /// Most rows of whole texts that go through a layer together: those of a long text, or of several short ones.
    /// Meaningful for a bidirectional model.
    pub fn text_rows_max(&self) -> usize {
        self.context_tokens_max().max(TEXT_BATCH_ROWS_MAX) as usize
    }

    /// True if a token attends to those after it, too: a text goes through the layers whole.
    pub fn is_bidirectional(&self) -> bool {
        let of_text =
            |layer: &LayerSpec| matches!(layer.mixer, Mixer::Attention(AttentionSpec { window: Window::Text, .. }));
        self.layers.iter().any(of_text)
    }

    /// Checks that the keys and values of every layer can be stored as `kv_type`.
    ///
    /// # Errors
    /// [`UnsupportedModel::KvBlocks`] when a head's key or value does not fill whole blocks of `q8_0`.
    pub fn check_kv(&self, kv_type: KvType) -> Result<(), UnsupportedModel> {
        self.layers.iter().try_for_each(|layer| layer.mixer.check_kv(kv_type))
    }
}
