//! Reads a chat as OpenAI's API has it, without the options of an answer.

use crate::http::error::ApiError;
use crate::http::generation::text_model::{Conversation, ToolChoice};
use crate::http::openai::{messages, template_options, tools};
use crate::http::params::Params;

/// Reads `messages`, `tools`, and the options of the chat template.
///
/// # Errors
/// A 400 that names the parameter.
pub(super) fn read(params: &Params<'_>) -> Result<Conversation, ApiError> {
    if params.get("chat_template").is_some() {
        let message = "'chat_template' is not supported by this server yet.";
        return Err(ApiError::unsupported("chat_template", message));
    }
    let tools = tools::read(params)?;
    let options = template_options::read(params)?;
    Ok(Conversation {
        messages: messages::read(params)?,
        tools: if tools.choice == ToolChoice::None { Vec::new() } else { tools.tools },
        template_kwargs: options.kwargs,
        ending: options.ending,
    })
}
