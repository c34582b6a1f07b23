//! Errors between text and tokens.

/// Text could not be turned into tokens, or a model's text metadata could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A metadata key is absent or of another type.
    #[error("cannot use the model file's text metadata")]
    Metadata(#[from] stages::gguf::MetadataError),
    /// The tokenizer is of a kind that is not built in.
    #[error("unknown tokenizer model {found:?}: known are {known}")]
    UnknownModel {
        /// The name in the model file.
        found: String,
        /// The names that would have been accepted.
        known: String,
    },
    /// The rule that splits text into words is not built in.
    #[error("unknown pre-tokenizer {found:?}: known are {known}")]
    UnknownPreTokenizer {
        /// The name in the model file.
        found: String,
        /// The names that would have been accepted.
        known: String,
    },
    /// The vocabulary contradicts itself.
    #[error("bad vocabulary: {0}")]
    Vocabulary(String),
    /// The model file has no chat template, so the form of its prompts is not known.
    #[error("the model has no chat template: expected tokenizer.chat_template in its file; use plain completions")]
    NoChatTemplate,
    /// The chat template is not valid or failed.
    #[error("the chat template failed: {message}")]
    Template {
        /// The message of the template engine, or of the template itself.
        message: String,
        /// The engine's error, if there is one.
        #[source]
        cause: Option<Box<minijinja::Error>>,
    },
    /// The model's own template cannot be used, for a reason that was found when it was read.
    #[error("{0}")]
    Unusable(String),
    /// A request's template asks for calls that would not be found in the answer.
    #[error(
        "the request's chat_template asks for calls in another format than the model's own template: expected one in \
         which answers are read"
    )]
    CallFormat,
    /// No thread could be started to render on.
    #[error("cannot start a thread to render the chat template")]
    Thread(#[source] std::io::Error),
    /// A role is empty, too long, or holds characters that a role may not hold.
    #[error("bad role {found:?}: expected 1 to {max} letters, digits, '_' or '-'")]
    Role {
        /// The role as given.
        found: String,
        /// The most characters a role may have.
        max: usize,
    },
    /// A variable for the template has a name that it may not have, or is too large.
    #[error("bad template variable {found:?}: expected {expected}")]
    Variable {
        /// The variable's name.
        found: String,
        /// The names or values that would have been accepted.
        expected: String,
    },
    /// The last message's text is not in the prompt as it is, so that it cannot be continued.
    #[error("cannot continue the last message: expected text in it that the chat template keeps")]
    Continuation,
    /// The template rearranges message text, so control tokens spelled in it cannot be told apart from the template's
    /// own.
    #[error(
        "cannot keep control tokens in message text apart: the chat template rewrites messages that spell control \
         tokens"
    )]
    Provenance,
    /// The text is longer than the limit.
    #[error("text too long: expected at most {expected} bytes, found {found}")]
    TooLong {
        /// The most bytes accepted.
        expected: usize,
        /// The bytes given.
        found: usize,
    },
    /// The pre-tokenizer could not split the text into words.
    #[error("cannot split the text into words")]
    Split(#[source] Box<fancy_regex::Error>),
    /// Some character has no token.
    #[error("the vocabulary cannot spell {found:?}")]
    Unspellable {
        /// The word that could not be spelled.
        found: String,
    },
}

// === impl TextError ===

impl TextError {
    /// A failure of the chat template that is not an error of the engine.
    pub(super) fn template(message: &str) -> Self {
        Self::Template { message: message.to_owned(), cause: None }
    }
}
