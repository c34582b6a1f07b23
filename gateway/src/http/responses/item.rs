//! The items of a conversation, as requests bring them and answers return them.

use serde::Serialize;

use super::logprobs::LogprobBody;

/// One item.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Item {
    /// A text of the user, the application or the model.
    Message(MessageItem),
    /// The text in which the model reasons before it answers.
    Reasoning(ReasoningItem),
    /// A call of a function by the model.
    FunctionCall(CallItem),
    /// The result of such a call.
    FunctionCallOutput(CallOutputItem),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct MessageItem {
    pub(super) id: String,
    pub(super) status: Status,
    pub(super) role: Role,
    pub(super) content: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ReasoningItem {
    pub(super) id: String,
    /// Summaries of the reasoning. This server makes none.
    pub(super) summary: [(); 0],
    pub(super) content: Vec<Part>,
    pub(super) status: Status,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CallItem {
    pub(super) id: String,
    pub(super) status: Status,
    /// The id that the call's output refers to.
    pub(super) call_id: String,
    /// The namespace that the function belongs to, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// The arguments: a JSON object as text.
    pub(super) arguments: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CallOutputItem {
    pub(super) id: String,
    pub(super) status: Status,
    pub(super) call_id: String,
    pub(super) output: String,
}

/// A part of an item's content.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Part {
    /// Text for the model.
    InputText { text: String },
    /// Text of the model.
    OutputText {
        text: String,
        /// Citations of hosted tools. This server has none.
        annotations: [(); 0],
        logprobs: Vec<LogprobBody>,
    },
    /// The model's refusal to answer, which only other servers make.
    Refusal { refusal: String },
    /// Text of the model's reasoning.
    ReasoningText { text: String },
}

/// The progress of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// More of it comes.
    InProgress,
    /// It is whole.
    Completed,
    /// It was cut off.
    Incomplete,
}

/// The speaker of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    User,
    Assistant,
    System,
    /// OpenAI's newer name of `system`.
    Developer,
}

// === impl Item ===

impl Item {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Message(item) => &item.id,
            Self::Reasoning(item) => &item.id,
            Self::FunctionCall(item) => &item.id,
            Self::FunctionCallOutput(item) => &item.id,
        }
    }

    /// Bytes that it takes in memory: its texts, and the sizes of its types.
    pub(super) fn bytes(&self) -> usize {
        let texts = match self {
            Self::Message(item) => item.content.iter().map(Part::bytes).sum(),
            Self::Reasoning(item) => item.content.iter().map(Part::bytes).sum(),
            Self::FunctionCall(item) => {
                let namespace = item.namespace.as_ref().map_or(0, String::len);
                item.call_id.len() + namespace + item.name.len() + item.arguments.len()
            }
            Self::FunctionCallOutput(item) => item.call_id.len() + item.output.len(),
        };
        size_of::<Self>() + self.id().len() + texts
    }

    /// The same item without log-probabilities, which are no part of a conversation.
    pub(super) fn without_logprobs(mut self) -> Self {
        if let Self::Message(message) = &mut self {
            for part in &mut message.content {
                if let Part::OutputText { logprobs, .. } = part {
                    *logprobs = Vec::new();
                }
            }
        }
        self
    }
}

// === impl Part ===

impl Part {
    /// Text of the model, with the log-probabilities of its tokens.
    pub(super) fn output(text: String, logprobs: Vec<LogprobBody>) -> Self {
        Self::OutputText { text, annotations: [], logprobs }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::InputText { text } | Self::OutputText { text, .. } | Self::ReasoningText { text } => text,
            Self::Refusal { refusal } => refusal,
        }
    }

    fn bytes(&self) -> usize {
        let logprobs = match self {
            Self::OutputText { logprobs, .. } => logprobs.iter().map(LogprobBody::bytes).sum(),
            _ => 0,
        };
        size_of::<Self>() + self.text().len() + logprobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_are_written_in_the_shapes_of_the_reference() {
        let call = CallItem {
            id: "fc_1".to_owned(),
            status: Status::Completed,
            call_id: "call_1".to_owned(),
            namespace: None,
            name: "f".to_owned(),
            arguments: "{}".to_owned(),
        };
        assert_eq!(
            serde_json::to_value(Item::FunctionCall(call)).unwrap(),
            json!({
                "type": "function_call", "id": "fc_1", "status": "completed", "call_id": "call_1", "name": "f",
                "arguments": "{}"
            })
        );
        let message = MessageItem {
            id: "msg_1".to_owned(),
            status: Status::Incomplete,
            role: Role::Assistant,
            content: vec![Part::output("hi".to_owned(), Vec::new())],
        };
        assert_eq!(
            serde_json::to_value(Item::Message(message)).unwrap(),
            json!({
                "type": "message", "id": "msg_1", "status": "incomplete", "role": "assistant",
                "content": [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}]
            })
        );
        let reasoning = ReasoningItem {
            id: "rs_1".to_owned(),
            summary: [],
            content: vec![Part::ReasoningText { text: "hm".to_owned() }],
            status: Status::InProgress,
        };
        assert_eq!(
            serde_json::to_value(Item::Reasoning(reasoning)).unwrap(),
            json!({
                "type": "reasoning", "id": "rs_1", "summary": [], "status": "in_progress",
                "content": [{"type": "reasoning_text", "text": "hm"}]
            })
        );
    }

    #[test]
    fn the_bytes_of_an_item_grow_with_its_texts() {
        let output = |output: &str| {
            Item::FunctionCallOutput(CallOutputItem {
                id: "fco_1".to_owned(),
                status: Status::Completed,
                call_id: "call_1".to_owned(),
                output: output.to_owned(),
            })
        };
        assert_eq!(output(&"x".repeat(1000)).bytes(), output("").bytes() + 1000);
    }
}
