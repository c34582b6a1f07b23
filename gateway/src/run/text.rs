//! A model's text for the HTTP API: its tokenizer and chat template behind the API's [`http::TextModel`].

use stages::weights::ModelFile;

use super::RunError;
use crate::http;
use crate::text::{ChatTemplate, Detokenizer, Special, TextError, Tokenizer, Vocabulary};

/// The tokenizer and the chat template of one model file.
pub(super) struct ModelText {
    tokenizer: Tokenizer,
    /// The chat template, or the reason why it cannot be used.
    template: Result<ChatTemplate, String>,
}

/// The model's detokenizer as the API's [`http::Decoder`].
struct ModelDecoder(Detokenizer);

// === impl ModelText ===

impl ModelText {
    /// Reads vocabulary and template from `file`. If the template cannot be used, raw completions remain possible.
    pub(super) fn new(file: &ModelFile) -> Result<Self, RunError> {
        let path = file.path().display().to_string();
        let header = file.vocabulary_header().map_err(|cause| RunError::File { path, cause: Box::new(cause) })?;
        let vocabulary = Vocabulary::from_metadata(&header.metadata)?;
        let template = ChatTemplate::from_vocabulary(&vocabulary).map_err(|error| describe(&error));
        Ok(Self { tokenizer: Tokenizer::new(&vocabulary)?, template })
    }

    /// The reason why chats cannot be served, if they cannot.
    pub(super) fn template_problem(&self) -> Option<&str> {
        self.template.as_ref().err().map(String::as_str)
    }
}

fn describe(error: &TextError) -> String {
    error.to_string()
}

/// The API's error for a text that cannot be encoded.
fn refuse(error: &TextError) -> http::TextError {
    http::TextError(describe(error))
}

impl http::TextModel for ModelText {
    fn encode_chat(&self, messages: &[http::Message]) -> Result<Vec<u32>, http::TextError> {
        let template = self.template.as_ref().map_err(|reason| http::TextError(reason.clone()))?;
        let convert = |message: &http::Message| crate::text::Message {
            role: message.role.clone(),
            content: message.content.clone(),
        };
        let messages: Vec<_> = messages.iter().map(convert).collect();
        // With the beginning of the assistant's message, which the model then continues.
        let rendered = template.render(&messages, true).map_err(|error| refuse(&error))?;
        self.tokenizer.encode_rendered(&rendered).map_err(|error| refuse(&error))
    }

    fn encode_prompt(&self, prompt: &str) -> Result<Vec<u32>, http::TextError> {
        let ids = self.tokenizer.encode(prompt, Special::Parse).map_err(|error| refuse(&error))?;
        // The token that begins a text, if the model wants one and the prompt does not spell it already.
        let bos = self.tokenizer.bos().filter(|bos| self.tokenizer.add_bos() && ids.first() != Some(bos));
        Ok(bos.into_iter().chain(ids).collect())
    }

    fn decoder(&self) -> Box<dyn http::Decoder> {
        Box::new(ModelDecoder(Detokenizer::new(&self.tokenizer)))
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.tokenizer.token_bytes(token).to_vec()
    }

    fn stop_tokens(&self) -> &[u32] {
        self.tokenizer.stop_tokens()
    }

    fn vocab_size(&self) -> u32 {
        u32::try_from(self.tokenizer.vocab_size()).unwrap_or(u32::MAX)
    }
}

impl http::Decoder for ModelDecoder {
    fn push(&mut self, token: u32) -> String {
        self.0.push(token)
    }

    fn finish(&mut self) -> String {
        self.0.finish()
    }
}
