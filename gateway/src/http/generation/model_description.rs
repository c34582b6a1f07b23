//! A model's own description in its file, for clients that ask what they talk to.

use engine::generate::Pooling;
use serde_json::{Map, Value};

pub use crate::text::FimTokens;

/// The facts about a model that its file has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelDescription {
    /// The name of the file, without its folder.
    pub file_name: String,
    /// The file's length in bytes.
    pub file_bytes: u64,
    /// The digest that distinguishes the file from others.
    pub fingerprint: String,
    /// The architecture that the file names, such as `llama`.
    pub architecture: String,
    /// Number of weights.
    pub parameters: u64,
    /// The weights' format, such as `Q4_K_M`.
    pub quantization: String,
    /// The file's metadata, without the chat template. Arrays are empty.
    pub metadata: Map<String, Value>,
    /// The chat template's source.
    pub chat_template: Option<String>,
    /// The source of the template for conversations with tools, if it is another one.
    pub tool_use_template: Option<String>,
    /// True if the chat template takes tools.
    pub takes_tools: bool,
    /// True if the model can reason before it answers.
    pub reasons: bool,
    /// The spelling of the token that begins a text. It may be empty.
    pub bos: String,
    /// The spelling of the token that ends a text. It may be empty.
    pub eos: String,
    /// The tokens for filling in the middle, if the model has them.
    pub fim: Option<FimTokens>,
    /// The way in which it embeds texts.
    pub embedding: EmbeddingModel,
}

/// The way in which a model embeds texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbeddingModel {
    /// Values of an embedding: the model's hidden dimensions.
    pub dimensions: u32,
    /// The tokens whose hidden states make it. `None` if the model ranks texts instead.
    pub pooling: Option<Pooling>,
    /// True if it makes nothing but embeddings.
    pub only: bool,
}
