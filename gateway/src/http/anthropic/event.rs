//! The events of a stream. Each has a name, which its data repeats as `type`.

use serde::Serialize;

use super::answer::MessageBody;
use super::block::Block;
use super::usage::UsageBody;
use crate::http::generation::dialect::Events;
use crate::http::generation::timings::TimingsBody;

/// One event of a stream.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// The message, still without content.
    MessageStart {
        message: &'a MessageBody,
    },
    ContentBlockStart {
        index: usize,
        content_block: Block,
    },
    ContentBlockDelta {
        index: usize,
        delta: BlockDelta<'a>,
    },
    ContentBlockStop {
        index: usize,
    },
    /// The reason why the message ended, and the request's tokens.
    MessageDelta {
        delta: MessageDelta,
        usage: UsageBody,
        timings: TimingsBody,
    },
    MessageStop,
    Ping,
}

/// The part that an event adds to a block.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(crate) enum BlockDelta<'a> {
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: &'a str },
    #[serde(rename = "signature_delta")]
    Signature { signature: &'a str },
    #[serde(rename = "text_delta")]
    Text { text: &'a str },
    /// More of the JSON text of a tool's input.
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: &'a str },
}

/// The end of a message.
#[derive(Debug, Serialize)]
pub(crate) struct MessageDelta {
    pub(crate) stop_reason: &'static str,
    pub(crate) stop_sequence: Option<String>,
}

// === impl Event ===

impl Event<'_> {
    /// Appends the event to `events`.
    pub(crate) fn push_to(&self, events: &mut Events) {
        events.push_named(self.name(), self);
    }

    fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Ping => "ping",
        }
    }
}
