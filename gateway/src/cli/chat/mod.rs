//! `baton chat`: a conversation on the terminal, or one answer for a pipe.

mod arguments;
mod command;
mod history;
mod line_buffer;
mod prompt;
mod prompt_sign;
mod session;
mod transcript;

use std::io::{self, IsTerminal, Read};

pub use arguments::ChatArguments;

use self::session::Session;
use self::transcript::Transcript;
use super::exit::{CliError, Exit};
use crate::chat::{CONVERSATION_BYTES_MAX, ChatClient, Conversation};
use crate::client::Connector;
use crate::settings::{ClientSettings, GatewayOptions, TerminalSettings};

/// Runs `baton chat`.
pub(super) fn run(
    arguments: &ChatArguments,
    gateway: &GatewayOptions,
    client: &ClientSettings,
    terminal: &TerminalSettings,
) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::Runtime { source })?;
    let target = arguments.endpoint.target(gateway, client);
    let url = target.endpoint.to_string();
    let connector = Connector::new(target.endpoint.scheme(), &client.trusted);
    let connector = connector.map_err(|cause| CliError::Trust { url: url.clone(), cause })?;
    let mut conversation = match &arguments.load {
        Some(path) => Conversation::load(path)?,
        None => Conversation::default(),
    };
    if let Some(system) = &arguments.system {
        conversation.set_system(system);
    }
    let message = message(&arguments.prompt)?;
    let asking = ChatClient::new(target, connector, arguments.endpoint.model.clone(), arguments.options());
    let client = runtime.block_on(asking).map_err(|cause| CliError::Endpoint { url: url.clone(), cause })?;
    let stdout = io::stdout();
    // A file or a pipe gets the answer alone.
    let transcript = Transcript::new(stdout.is_terminal() && terminal.colours, stdout.is_terminal());
    let mut session = Session { runtime, client, url, conversation, transcript };
    match message {
        Some(message) => session.answer_once(message),
        None => session.talk(terminal.history.as_deref()),
    }
}

/// The message of the command line and of a standard input that is no terminal. `None` for a conversation.
fn message(prompt: &[String]) -> Result<Option<String>, CliError> {
    let mut parts = Vec::new();
    if !prompt.is_empty() {
        parts.push(prompt.join(" "));
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let mut text = String::new();
        stdin.take(CONVERSATION_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > CONVERSATION_BYTES_MAX {
            return Err(CliError::LongMessage);
        }
        // Another program's input that is empty is no reason to drop the prompt.
        parts.extend(Some(text.trim_end().to_owned()).filter(|text| !text.is_empty()));
        if parts.is_empty() {
            return Err(CliError::NoMessage);
        }
    }
    Ok((!parts.is_empty()).then(|| parts.join("\n\n")))
}
