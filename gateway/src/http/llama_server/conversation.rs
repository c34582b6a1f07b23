//! Reads a chat as OpenAI's API has it, without the options of an answer.

use crate::http::app_state::Settings;
use crate::http::error::ApiError;
use crate::http::generation::text_model::{Conversation, ToolChoice};
use crate::http::openai::{messages, template_options, tools};
use crate::http::params::Params;

/// Reads `messages`, `tools`, and the options of the chat template.
///
/// # Errors
/// A 400 that names the parameter.
pub(super) fn read(params: &Params<'_>, settings: &Settings) -> Result<Conversation, ApiError> {
    let tools = tools::read(params)?;
    let options = template_options::read(params, settings)?;
    Ok(Conversation {
        messages: messages::read(params)?,
        tools: if tools.choice == ToolChoice::None { Vec::new() } else { tools.tools },
        template_kwargs: options.kwargs,
        ending: options.ending,
        template: options.template,
    })
}
