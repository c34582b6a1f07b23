//! The events of a streamed response.

use serde::Serialize;

use super::body::ResponseBody;
use super::item::{Item, Part};
use super::logprobs::LogprobBody;

/// An event without its number. Its name is also its `type`.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) detail: Detail,
}

/// An event as it is sent.
#[derive(Debug, Serialize)]
pub(super) struct Numbered<'a> {
    #[serde(rename = "type")]
    pub(super) name: &'static str,
    /// The number of the event in its stream, from 0.
    pub(super) sequence_number: u64,
    #[serde(flatten)]
    pub(super) detail: &'a Detail,
}

/// The fields of an event, which differ by its type. `output_index` is the number of the item in the answer, and
/// `content_index` that of the part in the item.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Detail {
    /// The response begins or ends.
    Response { response: Box<ResponseBody> },
    /// An item begins or ends.
    Item { output_index: usize, item: Item },
    /// A part of an item begins or ends.
    Part { item_id: String, output_index: usize, content_index: usize, part: Part },
    /// More text of a message.
    TextDelta { item_id: String, output_index: usize, content_index: usize, delta: String, logprobs: Vec<LogprobBody> },
    /// The whole text of a message.
    TextDone { item_id: String, output_index: usize, content_index: usize, text: String, logprobs: Vec<LogprobBody> },
    /// More reasoning.
    ReasoningDelta { item_id: String, output_index: usize, content_index: usize, delta: String },
    /// The whole reasoning.
    ReasoningDone { item_id: String, output_index: usize, content_index: usize, text: String },
    /// More arguments of a call.
    ArgumentsDelta { item_id: String, output_index: usize, delta: String },
    /// The whole arguments of a call.
    ArgumentsDone { item_id: String, output_index: usize, name: String, arguments: String },
    /// The response failed.
    Error { code: Option<&'static str>, message: String, param: Option<String> },
    /// Nothing happened for a while.
    Nothing {},
}

// === impl Event ===

impl Event {
    pub(super) fn new(name: &'static str, detail: Detail) -> Self {
        Self { name, detail }
    }
}
