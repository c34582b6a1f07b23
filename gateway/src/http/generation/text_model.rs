//! The seam between the door and text: a model's tokenizer and chat template, or a test's own arithmetic.

pub use crate::text::Message;

/// Text the model cannot take, such as an order of roles its template refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(pub String);

/// How a model's text becomes tokens and back. Encoding may take milliseconds: the door calls it off its own threads.
pub trait TextModel: Send + Sync + 'static {
    /// The token ids of a chat, up to where the assistant is to speak. Special tokens in contents are plain text.
    ///
    /// # Errors
    /// [`TextError`] when the model's template refuses the messages.
    fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>, TextError>;

    /// The token ids of a raw prompt; special tokens in it are control tokens.
    ///
    /// # Errors
    /// [`TextError`] when it cannot be encoded.
    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, TextError>;

    /// What turns one sequence's tokens into text.
    fn decoder(&self) -> Box<dyn Decoder>;

    /// The bytes a token stands for; perhaps part of a character.
    fn token_bytes(&self, token: u32) -> Vec<u8>;

    /// Tokens that end an answer.
    fn stop_tokens(&self) -> &[u32];

    /// Token ids are below this.
    fn vocab_size(&self) -> u32;
}

/// Turns one sequence's tokens into text, holding back incomplete characters.
pub trait Decoder: Send {
    /// The text that is certain after `token`.
    fn push(&mut self, token: u32) -> String;

    /// What was held back.
    fn finish(&mut self) -> String;
}
