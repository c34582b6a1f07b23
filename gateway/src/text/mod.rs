//! Text: from chat messages to token ids, and from token ids back to text.
//!
//! Everything here is a pure function of the model file's metadata and the text at hand. It uses no socket and no
//! device, and a clock only for a chat template that asks for the date. A prompt goes
//! `Message → ChatTemplate → Rendered → Tokenizer → ids`. An answer goes `id → Detokenizer → StopStrings → client`.
//!
//! Text that a client wrote never becomes a control token, whatever it spells. The file `rendered.rs` describes the
//! method.

mod alphabet;
mod calendar;
mod chat_template;
mod detokenizer;
mod error;
mod filters;
mod json;
mod partition;
mod pieces;
mod pre_tokenizer;
mod rendered;
mod stop_strings;
mod stops;
mod token_kind;
mod tokenizer;
mod vocabulary;

pub use chat_template::{ChatTemplate, Message};
pub use detokenizer::Detokenizer;
pub use error::TextError;
pub use rendered::Rendered;
pub use stop_strings::{StopStrings, Stopped};
pub use token_kind::TokenKind;
pub use tokenizer::{Special, Tokenizer};
pub use vocabulary::{Vocabulary, VocabularyFields};
