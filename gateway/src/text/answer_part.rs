//! The parts of a model's answer: its reasoning, its text and its calls of tools.

/// A part of an answer. Neighbouring parts of one kind belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerPart {
    /// More of the reasoning.
    Reasoning(String),
    /// More of the text.
    Text(String),
    /// A call of the tool `name` begins.
    Call {
        /// The tool's name.
        name: String,
    },
    /// More of the JSON text of the arguments of the call that began last.
    Arguments(String),
    /// The call that began last is complete.
    CallEnd,
}

// === impl AnswerPart ===

impl AnswerPart {
    /// Appends `part` to `parts`, joined to the last one if both are more of the same. An empty part is left out.
    pub(super) fn add_to(self, parts: &mut Vec<Self>) {
        match (parts.last_mut(), &self) {
            (_, Self::Reasoning(more) | Self::Text(more) | Self::Arguments(more)) if more.is_empty() => {}
            (Some(Self::Reasoning(text)), Self::Reasoning(more))
            | (Some(Self::Text(text)), Self::Text(more))
            | (Some(Self::Arguments(text)), Self::Arguments(more)) => text.push_str(more),
            _ => parts.push(self),
        }
    }
}
