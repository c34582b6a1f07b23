//! A chat that is to be answered, and the plan for reading its answer.

use super::answer_parser::{AnswerFormat, AnswerParser, AnswerStart};
use super::conversation::{Conversation, PromptEnding, ToolChoice};
use super::tools::KnownTools;

/// A chat that is to be answered: the conversation, and the calls and the reasoning that the answer may have.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRequest {
    /// The conversation.
    pub conversation: Conversation,
    /// The calls that the answer may have.
    pub tool_choice: ToolChoice,
    /// True if it may have several of them.
    pub parallel_tool_calls: bool,
    /// Most tokens of reasoning, if there is a bound.
    pub reasoning_tokens_max: Option<u32>,
}

/// The way in which the answer to one chat is read, and what bounds it.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerPlan {
    /// The way in which the model writes answers.
    pub format: AnswerFormat,
    /// The tools that it may call.
    pub tools: KnownTools,
    /// The place in the answer at which the prompt ends.
    pub start: AnswerStart,
    /// True if the model must call a tool.
    pub is_call_required: bool,
    /// True if it may call several.
    pub parallel_tool_calls: bool,
    /// Most tokens of reasoning, if there is a bound.
    pub reasoning_tokens_max: Option<u32>,
}

// === impl AnswerRequest ===

impl From<Conversation> for AnswerRequest {
    /// The model decides about calls and reasoning.
    fn from(conversation: Conversation) -> Self {
        let tool_choice = ToolChoice::Auto;
        Self { conversation, tool_choice, parallel_tool_calls: true, reasoning_tokens_max: None }
    }
}

// === impl AnswerPlan ===

impl AnswerPlan {
    /// The plan for the answer to `request` by a model that writes in `format`. `prompt_end` is the end of the prompt's
    /// text.
    #[must_use]
    pub fn new(format: AnswerFormat, request: &AnswerRequest, prompt_end: &str) -> Self {
        Self {
            format,
            tools: KnownTools::new(&request.conversation.tools, &request.tool_choice),
            start: start(format, &request.conversation, prompt_end),
            is_call_required: request.tool_choice.is_required(),
            parallel_tool_calls: request.parallel_tool_calls,
            reasoning_tokens_max: request.reasoning_tokens_max,
        }
    }

    /// The parser of one answer.
    #[must_use]
    pub fn parser(&self) -> AnswerParser {
        self.format.parser(self.tools.clone(), self.start)
    }
}

/// The place in the answer at which a prompt ends. A continued message is text, unless its reasoning is open. Any other
/// prompt ends within the reasoning if its last text is the mark before reasoning.
fn start(format: AnswerFormat, conversation: &Conversation, prompt_end: &str) -> AnswerStart {
    let Some(reasoning) = format.reasoning else {
        let continued = conversation.ending == PromptEnding::Continued;
        return if continued { AnswerStart::Text } else { AnswerStart::Beginning };
    };
    let (is_open, otherwise) = match conversation.ending {
        PromptEnding::Continued => {
            let content = conversation.messages.last().map_or("", |last| last.content.as_str());
            let is_open = content.rsplit_once(reasoning.open).is_some_and(|(_, rest)| !rest.contains(reasoning.close));
            (is_open, AnswerStart::Text)
        }
        PromptEnding::Generation | PromptEnding::Complete => {
            (prompt_end.trim_end().ends_with(reasoning.open.trim_end()), AnswerStart::Beginning)
        }
    };
    if is_open { AnswerStart::Reasoning } else { otherwise }
}
