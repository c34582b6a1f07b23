//! Description of a file's model as data: what each layer computes, its sizes and tensors. Everything is checked before
//! a weight is mapped. This module computes nothing.
//!
//! A family (`families/`) turns a file's metadata into a [`ModelSpec`]. Whatever comes after it (the check of tensors,
//! runners, the cluster's record) reads the spec and knows no family.

mod attention_keys;
mod error;
mod expert_keys;
mod families;
mod feed_forward;
mod keys;
mod layer_role;
mod mixer;
mod pooling_type;
mod rope;
mod rope_keys;
mod spec;
mod tensors;

pub use error::UnsupportedModel;
pub use families::Family;
pub use feed_forward::{Activation, DenseSpec, ExpertsSpec, FeedForward, PlainSpec, RouterScore, Routing, SharedSpec};
pub use layer_role::LayerRole;
pub use mixer::{AttentionSpec, LatentSpec, Mixer, QueryKeyNorm, ShortConvSpec, Temperature, Window};
pub use pooling_type::PoolingType;
pub use rope::{LongRope, Rope, RopeScaling, RopeSpec, RopeStyle, YarnScaling};
pub use spec::{AddedRows, EmbeddingSpec, HeadSpec, LayerSpec, ModelSpec, NormSpec};
pub use tensors::Presence;

/// Name of the embedding table.
pub(crate) const EMBEDDING: &str = "token_embd.weight";
/// Name of the output head's matrix (`lm_head`), in a model that does not use the embedding table for it.
const OUTPUT: &str = "output.weight";
/// Name of the norm before the output head.
pub(crate) const OUTPUT_NORM: &str = "output_norm.weight";
/// Names of the rows that are added to a token's, and of the norm of the sum, in a model that has these.
pub(crate) const POSITIONS: &str = "position_embd.weight";
pub(crate) const TOKEN_TYPES: &str = "token_types.weight";
pub(crate) const EMBEDDING_NORM: &str = "token_embd_norm.weight";
pub(crate) const EMBEDDING_NORM_BIAS: &str = "token_embd_norm.bias";
/// Name of the divisors of each pair's RoPE frequency, in a model that extends its context by Llama 3's method.
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Names of these divisors in a model that has two sets: for its original context, and for longer ones.
const ROPE_FACTORS_SHORT: &str = "rope_factors_short.weight";
const ROPE_FACTORS_LONG: &str = "rope_factors_long.weight";
