//! A conversation with a model over the chat API of an endpoint: the messages, the request, and the stream of its
//! answer. It does not know the terminal.

mod answer;
mod client;
mod conversation;
mod limits;

pub use answer::{AnswerEnd, AnswerStage, AnswerTimings, ComputedPrompt, Piece};
pub use client::{ChatClient, ChatOptions};
pub use conversation::{Conversation, ConversationError, Message, Role};
pub use limits::CONVERSATION_BYTES_MAX;
