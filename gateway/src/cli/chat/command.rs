//! The meaning of a line at the prompt of `baton chat`: a message or a command.

use std::path::PathBuf;

/// The commands, for `/help`, with their explanations.
pub(super) const COMMANDS: &[(&str, &str)] = &[
    ("/help", "show the commands"),
    ("/system [TEXT]", "set the system prompt; without TEXT remove it"),
    ("/clear", "forget the turns and keep the system prompt"),
    ("/retry", "answer the last message anew"),
    ("/save FILE", "write the conversation to FILE as JSON"),
    ("/load FILE", "go on with the conversation in FILE"),
    ("/quit", "leave (so does Ctrl-D)"),
];

/// A line's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing.
    Blank,
    /// A message for the model.
    Message(String),
    /// `/help`
    Help,
    /// `/system`
    System(String),
    /// `/clear`
    Clear,
    /// `/retry`
    Retry,
    /// `/save`
    Save(PathBuf),
    /// `/load`
    Load(PathBuf),
    /// `/quit`
    Quit,
}

// === impl Input ===

impl Input {
    /// The meaning of `line`. A message that begins with a slash is written with two.
    ///
    /// # Errors
    /// A sentence about a command that is unknown or incomplete.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return Ok(if line.is_empty() { Self::Blank } else { Self::Message(line.to_owned()) });
        };
        if command.starts_with('/') {
            return Ok(Self::Message(command.to_owned()));
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let file = || match rest {
            "" => Err(format!("/{name} needs a file: /{name} FILE")),
            path => Ok(PathBuf::from(path)),
        };
        match name {
            "help" | "?" => Ok(Self::Help),
            "system" => Ok(Self::System(rest.to_owned())),
            "clear" => Ok(Self::Clear),
            "retry" => Ok(Self::Retry),
            "save" => file().map(Self::Save),
            "load" => file().map(Self::Load),
            "quit" | "exit" | "bye" => Ok(Self::Quit),
            _ => {
                let known: Vec<_> = COMMANDS.iter().filter_map(|(usage, _)| usage.split(' ').next()).collect();
                Err(format!("/{name} is not known: expected one of {}; // sends a slash", known.join(", ")))
            }
        }
    }
}

/// The text of `/help`.
pub(super) fn help() -> String {
    let lines = COMMANDS.iter().map(|(usage, meaning)| format!("  {usage:16}{meaning}\n"));
    let lines: String = lines.collect();
    format!("{lines}  A line that ends with \\ goes on in the next one. Ctrl-C stops an answer.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_or_a_command() {
        for (line, input) in [
            ("  ", Input::Blank),
            (" hello /save x ", Input::Message("hello /save x".to_owned())),
            ("//etc is a folder", Input::Message("/etc is a folder".to_owned())),
            ("/system  Be brief. ", Input::System("Be brief.".to_owned())),
            ("/system", Input::System(String::new())),
            ("/save my chat.json", Input::Save("my chat.json".into())),
            ("/exit", Input::Quit),
        ] {
            assert_eq!(Input::parse(line), Ok(input), "{line:?}");
        }
    }

    #[test]
    fn a_command_that_is_unknown_or_incomplete_is_explained() {
        let error = Input::parse("/sav x").unwrap_err();
        assert!(error.contains("/sav is not known: expected one of /help, /system,"), "{error}");
        assert_eq!(Input::parse("/load ").unwrap_err(), "/load needs a file: /load FILE");
    }
}
