//! The terminal of the person, and the files that are kept for them, by the environment.

use std::path::PathBuf;

use super::environment::Environment;

/// Name of the file with the lines of `baton chat`.
const HISTORY: &str = "chat_history";

/// The terminal of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TerminalSettings {
    /// True if escape sequences for colours may be written to a terminal: `NO_COLOR` is unset, and the terminal is not
    /// `dumb`.
    pub colours: bool,
    /// True if the cursor can be moved: the terminal is not `dumb`.
    pub moves_cursor: bool,
    /// The file with the lines that were written at a prompt, if there is a folder for it.
    pub history: Option<PathBuf>,
}

// === impl TerminalSettings ===

impl TerminalSettings {
    /// The settings in `environment`.
    pub fn new(environment: &Environment) -> Self {
        let is_dumb = environment.terminal.as_deref() == Some("dumb");
        Self {
            colours: !environment.no_color && !is_dumb,
            moves_cursor: !is_dumb,
            history: environment.state.as_ref().map(|state| state.join(HISTORY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_and_a_dumb_terminal_get_no_colours() {
        let found = |no_color, terminal: &str| {
            let terminal = Some(terminal.to_owned());
            let found = TerminalSettings::new(&Environment { no_color, terminal, ..Environment::default() });
            (found.colours, found.moves_cursor)
        };
        assert_eq!(found(false, "xterm-256color"), (true, true));
        assert_eq!(found(true, "xterm-256color"), (false, true));
        assert_eq!(found(false, "dumb"), (false, false));
    }
}
