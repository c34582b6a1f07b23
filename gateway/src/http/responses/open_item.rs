//! The item of an answer that still grows.

use super::event::{Detail, Event};
use super::item::{CallItem, Item, MessageItem, Part, ReasoningItem, Role, Status};
use super::logprobs::LogprobBody;

/// The number of an item's part: every item of an answer has at most one.
pub(super) const CONTENT_INDEX: usize = 0;

/// An item that still grows.
#[derive(Debug, Clone)]
pub(super) enum OpenItem {
    Reasoning { id: String, text: String },
    Message { id: String, text: String, logprobs: Vec<LogprobBody> },
    Call { index: usize, item: CallItem },
}

// === impl OpenItem ===

impl OpenItem {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Reasoning { id, .. } | Self::Message { id, .. } => id,
            Self::Call { item, .. } => &item.id,
        }
    }

    /// The item as it begins: without content.
    pub(super) fn beginning(&self) -> Item {
        let status = Status::InProgress;
        match self {
            Self::Reasoning { id, .. } => {
                Item::Reasoning(ReasoningItem { id: id.clone(), summary: [], content: Vec::new(), status })
            }
            Self::Message { id, .. } => {
                Item::Message(MessageItem { id: id.clone(), status, role: Role::Assistant, content: Vec::new() })
            }
            Self::Call { item, .. } => Item::FunctionCall(item.clone()),
        }
    }

    /// The part that it begins with, if it has parts.
    pub(super) fn empty_part(&self) -> Option<Part> {
        match self {
            Self::Reasoning { .. } => Some(Part::ReasoningText { text: String::new() }),
            Self::Message { .. } => Some(Part::output(String::new(), Vec::new())),
            Self::Call { .. } => None,
        }
    }

    fn part(&self) -> Option<Part> {
        match self {
            Self::Reasoning { text, .. } => Some(Part::ReasoningText { text: text.clone() }),
            Self::Message { text, logprobs, .. } => Some(Part::output(text.clone(), logprobs.clone())),
            Self::Call { .. } => None,
        }
    }

    /// The item with all its content.
    pub(super) fn item(&self, status: Status) -> Item {
        let content = self.part().into_iter().collect();
        match self.beginning() {
            Item::Reasoning(item) => Item::Reasoning(ReasoningItem { content, status, ..item }),
            Item::Message(item) => Item::Message(MessageItem { content, status, ..item }),
            Item::FunctionCall(item) => Item::FunctionCall(CallItem { status, ..item }),
            other => other,
        }
    }

    /// The events that repeat its content before it ends.
    pub(super) fn announce_end(&self, output_index: usize, events: &mut Vec<Event>) {
        let (item_id, content_index) = (self.id().to_owned(), CONTENT_INDEX);
        events.push(match self {
            Self::Reasoning { text, .. } => Event::new(
                "response.reasoning_text.done",
                Detail::ReasoningDone { item_id: item_id.clone(), output_index, content_index, text: text.clone() },
            ),
            Self::Message { text, logprobs, .. } => Event::new(
                "response.output_text.done",
                Detail::TextDone {
                    item_id: item_id.clone(),
                    output_index,
                    content_index,
                    text: text.clone(),
                    logprobs: logprobs.clone(),
                },
            ),
            Self::Call { item, .. } => Event::new(
                "response.function_call_arguments.done",
                Detail::ArgumentsDone {
                    item_id: item_id.clone(),
                    output_index,
                    name: item.name.clone(),
                    arguments: item.arguments.clone(),
                },
            ),
        });
        if let Some(part) = self.part() {
            let detail = Detail::Part { item_id, output_index, content_index, part };
            events.push(Event::new("response.content_part.done", detail));
        }
    }
}
