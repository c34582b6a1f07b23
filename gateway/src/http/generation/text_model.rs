//! The interface between the HTTP API and text: a model's tokenizer and chat template, or a test's own arithmetic.

pub use crate::text::Message;

/// The model cannot take a text, for example because its template refuses the order of roles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(pub String);

/// Encodes text to a model's tokens and decodes tokens to text. Encoding may take milliseconds, so the HTTP server
/// calls it on blocking threads.
pub trait TextModel: Send + Sync + 'static {
    /// The token ids of a chat, up to the start of the assistant's answer. Special tokens spelled in contents are plain
    /// text.
    ///
    /// # Errors
    /// [`TextError`] when the model's template refuses the messages.
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, TextError>;

    /// The token ids of a raw prompt. Special tokens spelled in it are control tokens.
    ///
    /// # Errors
    /// [`TextError`] when it cannot be encoded.
    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, TextError>;

    /// A decoder for the tokens of one sequence.
    fn decoder(&self) -> Box<dyn Decoder>;

    /// The bytes of a token. They may be a part of a character.
    fn token_bytes(&self, token: u32) -> Vec<u8>;

    /// Tokens that end an answer.
    fn stop_tokens(&self) -> &[u32];

    /// Number of tokens in the vocabulary. Token ids are below it.
    fn vocab_size(&self) -> u32;
}

/// Turns one sequence's tokens into text, holding back incomplete characters.
pub trait Decoder: Send {
    /// The text that `token` completes.
    fn push(&mut self, token: u32) -> String;

    /// The text held back until the end of the sequence.
    fn finish(&mut self) -> String;
}
