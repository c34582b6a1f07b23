//! The line at which a person writes, with keys to edit it, and lines that go on.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use console::{Key, Term};

use super::super::exit::CliError;
use super::super::output;
use super::history::History;
use super::line_buffer::{Edit, LineBuffer};

/// The prompt, and that of a line that goes on.
const PROMPT: &str = ">>> ";
const MORE: &str = "... ";

/// The end of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// It was written.
    Written(String),
    /// Ctrl-C took it back.
    Dropped,
    /// Ctrl-D on an empty line.
    End,
}

/// Reads lines from the terminal.
pub(super) struct Prompt {
    terminal: Term,
    history: History,
}

/// A terminal that does not echo, until it is dropped. Keys are read one by one anyway; this keeps those that come
/// between two reads from the screen.
struct Quiet {
    before: Option<String>,
}

// === impl Prompt ===

impl Prompt {
    /// A prompt with the lines of the file `history`, which it adds to.
    pub(super) fn open(history: Option<&Path>) -> Self {
        Self { terminal: Term::stdout(), history: History::open(history) }
    }

    /// Reads a line and those that it goes on in.
    pub(super) fn read(&mut self) -> Result<Line, CliError> {
        let _quiet = Quiet::begin();
        let mut text = String::new();
        let mut prompt = PROMPT;
        loop {
            let line = match self.edit(prompt).map_err(CliError::prompt)? {
                Edit::Written(line) => line,
                Edit::End if text.is_empty() => return Ok(Line::End),
                Edit::End => String::new(),
                Edit::Dropped | Edit::Goes => return Ok(Line::Dropped),
            };
            match line.strip_suffix('\\') {
                Some(begun) => text = text + begun + "\n",
                None => {
                    self.history.add(&line);
                    return Ok(Line::Written(text + &line));
                }
            }
            prompt = MORE;
        }
    }

    fn edit(&self, prompt: &str) -> io::Result<Edit> {
        let mut line = LineBuffer::default();
        loop {
            self.draw(prompt, &line)?;
            let key = match self.terminal.read_key_raw() {
                // A terminal that is gone gives no more keys.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Key::CtrlC,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Edit::End),
                key => key?,
            };
            let edit = line.press(&key, self.history.lines());
            if edit != Edit::Goes {
                output::print("\r\n")?;
                return Ok(edit);
            }
        }
    }

    fn draw(&self, prompt: &str, line: &LineBuffer) -> io::Result<()> {
        let columns = usize::from(self.terminal.size().1).saturating_sub(prompt.len() + 1);
        let (shown, cursor) = line.window(columns);
        // Letters of some scripts take two columns.
        let before: String = shown.chars().take(cursor).collect();
        let column = prompt.len() + console::measure_text_width(&before);
        // To the beginning of the line, which is cleared behind the text; then back to the cursor.
        output::print(&format!("\r{prompt}{shown}\x1b[K\r\x1b[{column}C"))
    }
}

// === impl Quiet ===

impl Quiet {
    /// Without `stty`, keys that come between two reads are echoed, and nothing else changes.
    fn begin() -> Self {
        let before = stty(&["-g"]).map(|state| state.trim().to_owned());
        if before.is_some() {
            stty(&["-icanon", "-echo", "-isig"]);
        }
        Self { before }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            stty(&[before]);
        }
    }
}

/// Runs `stty` on the terminal of stdin.
fn stty(arguments: &[&str]) -> Option<String> {
    let output = Command::new("stty").args(arguments).stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
