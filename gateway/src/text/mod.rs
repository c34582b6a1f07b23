//! Text: from chat messages to token ids, and from token ids back to text.
//!
//! Everything here is a pure function of the model file's metadata and the text at hand. It uses no socket and no
//! device, and a clock only for a chat template that asks for the date. A prompt goes
//! `Conversation → ChatTemplate → Rendered → Tokenizer → ids`. An answer goes
//! `id → MarkedDetokenizer → AnswerParser → StopStrings → client`, a raw completion past the parser.
//!
//! Text that a client wrote never becomes a control token, whatever it spells. The file `rendered.rs` describes the
//! method.

mod alphabet;
mod answer_parser;
mod answer_part;
mod answer_plan;
mod arguments;
mod byte_pair;
mod calendar;
mod charsmap;
mod chat_template;
mod chat_templates;
mod conversation;
mod detokenizer;
mod encoder;
mod error;
mod filters;
mod fim;
mod harmony;
mod json;
mod marked_detokenizer;
mod normalizer;
mod partition;
mod pieces;
mod pre_tokenizer;
mod reasoning;
mod rendered;
mod sentence_piece;
mod spelling;
mod spellings;
mod stop_strings;
mod stops;
mod strips;
mod token_kind;
mod tokenizer;
mod tokenizer_json;
mod tools;
mod unigram;
mod vocabulary;
mod vocabulary_fields;
mod vocabulary_model;
mod word_piece;

pub use answer_parser::{AnswerFormat, AnswerParser, AnswerStart};
pub use answer_part::AnswerPart;
pub use answer_plan::{AnswerPlan, AnswerRequest};
pub(crate) use calendar::strftime;
pub use chat_template::{ChatTemplate, TemplateTokens};
pub use chat_templates::ChatTemplates;
pub use conversation::{Conversation, Message, PromptEnding, Tool, ToolCall, ToolChoice};
pub use detokenizer::Detokenizer;
pub use error::TextError;
pub use fim::{FimFields, FimTokens};
pub use json::spaced_json;
pub use marked_detokenizer::{ControlMarks, MarkedDetokenizer};
pub use normalizer::NormalizerFields;
pub use reasoning::{ReasoningFormat, ReasoningGate, ReasoningTokens};
pub use rendered::Rendered;
pub use stop_strings::{StopStrings, Stopped};
pub use strips::StripFields;
pub use token_kind::TokenKind;
pub use tokenizer::{Special, Tokenizer};
pub use tokenizer_json::FolderFiles;
pub use tools::{CallGrammar, CallIds, CallMode, KnownTools, ToolFormat};
pub use vocabulary::Vocabulary;
pub use vocabulary_fields::VocabularyFields;
pub use vocabulary_model::VocabularyModel;
