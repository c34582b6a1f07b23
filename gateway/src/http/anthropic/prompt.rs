//! The part of a request that becomes the prompt. Both endpoints read it.

use serde_json::{Map, Value};

use super::params::Params;
use super::tools::ValidTools;
use super::{thinking, tools, turns, unsupported};
use crate::http::error::ApiError;
use crate::http::generation::text_model::{AnswerRequest, Conversation, ToolChoice};

/// A conversation to which the model is to answer.
#[derive(Debug, PartialEq)]
pub(crate) struct ValidPrompt {
    pub(crate) request: AnswerRequest,
    /// False if the client wants to know only that there was thinking.
    pub(crate) shows_thinking: bool,
}

// === impl ValidPrompt ===

impl ValidPrompt {
    /// Reads the conversation from `body`.
    ///
    /// # Errors
    /// A 400 that names the parameter.
    pub(crate) fn read(body: &Map<String, Value>) -> Result<Self, ApiError> {
        let params = Params::new(body);
        unsupported::refuse(&params)?;
        Self::read_conversation(&params)
    }

    fn read_conversation(params: &Params<'_>) -> Result<Self, ApiError> {
        let turns = turns::read(params)?;
        let ValidTools { tools, choice, parallel } = tools::read(params)?;
        let thinking = thinking::read(params)?;
        let conversation = Conversation {
            messages: turns.messages,
            tools: if choice == ToolChoice::None { Vec::new() } else { tools },
            template_kwargs: thinking.template_kwargs,
            ending: turns.ending,
            template: None,
        };
        let request = AnswerRequest {
            conversation,
            tool_choice: choice,
            parallel_tool_calls: parallel,
            reasoning_tokens_max: thinking.tokens_max,
        };
        Ok(Self { request, shows_thinking: thinking.is_shown })
    }
}
