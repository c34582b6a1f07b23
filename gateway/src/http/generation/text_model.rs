//! The interface between the HTTP API and text: a model's tokenizer and chat template, or a test's own arithmetic.

use engine::generate::SharedGrammar;

use crate::grammar::{GrammarError, GrammarSource};

pub use super::model_description::{EmbeddingModel, FimTokens, ModelDescription};
use crate::text::{AnswerFormat, ToolFormat};
pub use crate::text::{
    AnswerPart, AnswerPlan, AnswerRequest, Conversation, Message, PromptEnding, Tool, ToolCall, ToolChoice, spaced_json,
};

/// The model cannot take a text, for example because its template refuses the order of roles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(pub String);

/// The treatment of special tokens in [`TextModel::encode_text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// True if the text begins with the token that begins texts, provided that the model has one and wants it.
    pub added: bool,
    /// True if special tokens spelled in the text are control tokens.
    pub parsed: bool,
}

impl SpecialTokens {
    /// No special tokens at all: the text is plain, and a part of another one.
    pub const PLAIN: Self = Self { added: false, parsed: false };
}

/// The form that the text of an answer must have.
#[derive(Debug, Clone)]
pub struct TextForm {
    /// Its grammar.
    pub grammar: SharedGrammar,
    /// The source of the grammar.
    pub source: GrammarSource,
}

/// Encodes text to a model's tokens and decodes tokens to text. Encoding may take milliseconds, so the HTTP server
/// calls it on blocking threads.
pub trait TextModel: Send + Sync + 'static {
    /// The token ids of a chat, up to the start of the assistant's answer. Special tokens spelled in contents are plain
    /// text.
    ///
    /// # Errors
    /// [`TextError`] when the model's template refuses the messages.
    fn encode_chat(&self, conversation: &Conversation) -> Result<Vec<u32>, TextError>;

    /// The way to read the answer to `request`, whose prompt is `prompt`. Unless the model's template says otherwise,
    /// it writes calls as plain JSON and does not reason.
    fn plan_answer(&self, request: &AnswerRequest, _prompt: &[u32]) -> AnswerPlan {
        AnswerPlan::new(AnswerFormat { tools: ToolFormat::Json, reasoning: None }, request, "")
    }

    /// A decoder for the tokens of one answer by `plan`. It spells the marks that the plan's parser looks for.
    fn answer_decoder(&self, _plan: &AnswerPlan) -> Box<dyn Decoder> {
        self.decoder()
    }

    /// The grammar of an answer by `plan`. Its text has the form `text`, if there is one.
    ///
    /// # Errors
    /// [`TextError`] when the plan cannot be held to.
    fn answer_grammar(&self, _plan: &AnswerPlan, text: Option<TextForm>) -> Result<Option<SharedGrammar>, TextError> {
        Ok(text.map(|form| form.grammar))
    }

    /// The grammar of `source` for this model's tokens. Blocks for milliseconds, seconds at most.
    ///
    /// # Errors
    /// [`GrammarError`] when it cannot be compiled.
    fn compile_grammar(&self, _source: &GrammarSource) -> Result<SharedGrammar, GrammarError> {
        Err(GrammarError::Vocabulary { reason: "it has no grammars".to_owned() })
    }

    /// The token ids of a raw prompt. Special tokens spelled in it are control tokens.
    ///
    /// # Errors
    /// [`TextError`] when it cannot be encoded.
    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, TextError>;

    /// At most `tokens_max` token ids of a text that is to be embedded: those of a raw prompt and, if the model's texts
    /// end with a token of its own, that one. The end of a longer text is cut off.
    ///
    /// # Errors
    /// [`TextError`] when it cannot be encoded.
    fn encode_embedded(&self, text: &str, tokens_max: usize) -> Result<Vec<u32>, TextError> {
        let mut ids = self.encode_prompt(text)?;
        ids.truncate(tokens_max);
        Ok(ids)
    }

    /// The token ids of a text, with special tokens treated as `special` says.
    ///
    /// # Errors
    /// [`TextError`] when it cannot be encoded.
    fn encode_text(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TextError>;

    /// The text that [`Self::encode_chat`] encodes: the chat as the model's template renders it.
    ///
    /// # Errors
    /// [`TextError`] when the model's template refuses the messages.
    fn render_chat(&self, conversation: &Conversation) -> Result<String, TextError>;

    /// A decoder for the tokens of one sequence.
    fn decoder(&self) -> Box<dyn Decoder>;

    /// The bytes of a token. They may be a part of a character.
    fn token_bytes(&self, token: u32) -> Vec<u8>;

    /// The bytes of a token. For a special token, those of its spelling. Empty for an id outside the vocabulary.
    fn token_piece(&self, token: u32) -> Vec<u8>;

    /// A token as the vocabulary spells it, such as `Ġthe`. Empty for an id outside the vocabulary.
    fn token_spelling(&self, token: u32) -> String;

    /// Tokens that end an answer.
    fn stop_tokens(&self) -> &[u32];

    /// Number of tokens in the vocabulary. Token ids are below it.
    fn vocab_size(&self) -> u32;

    /// The model's own description in its file.
    fn description(&self) -> &ModelDescription;
}

/// Turns one sequence's tokens into text, holding back incomplete characters. One that is still incomplete when the
/// sequence ends is no text.
pub trait Decoder: Send {
    /// The text that `token` completes.
    fn push(&mut self, token: u32) -> String;
}

/// A text model for tests: one token for each byte. A chat is the contents of its messages.
#[cfg(test)]
pub(crate) struct ByteText;

#[cfg(test)]
impl TextModel for ByteText {
    fn encode_chat(&self, conversation: &Conversation) -> Result<Vec<u32>, TextError> {
        self.encode_prompt(&self.render_chat(conversation)?)
    }

    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, TextError> {
        Ok(prompt.bytes().map(u32::from).collect())
    }

    fn encode_text(&self, text: &str, _: SpecialTokens) -> Result<Vec<u32>, TextError> {
        self.encode_prompt(text)
    }

    fn render_chat(&self, conversation: &Conversation) -> Result<String, TextError> {
        Ok(conversation.messages.iter().map(|message| message.content.as_str()).collect())
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        unreachable!("nothing is decoded")
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        vec![token as u8]
    }

    fn token_piece(&self, token: u32) -> Vec<u8> {
        self.token_bytes(token)
    }

    fn token_spelling(&self, token: u32) -> String {
        char::from(token as u8).to_string()
    }

    fn stop_tokens(&self) -> &[u32] {
        &[]
    }

    fn vocab_size(&self) -> u32 {
        256
    }

    fn description(&self) -> &ModelDescription {
        unreachable!("nothing is described")
    }
}
