//! The answer on stdout as it comes: reasoning dimmed, control characters replaced, since a model's text could control
//! the terminal with them.

use std::io::{self, ErrorKind, Write};

use crate::chat::Piece;

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// Writes one answer after the other.
#[derive(Debug)]
pub(super) struct Transcript {
    colours: bool,
    /// False for a file or a pipe, which gets the text of the answer alone.
    shows_reasoning: bool,
    last: Last,
}

/// The last thing that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Reasoning,
    Text,
}

// === impl Transcript ===

impl Transcript {
    /// A transcript that dims if it may use colours.
    pub(super) fn new(colours: bool, shows_reasoning: bool) -> Self {
        Self { colours, shows_reasoning, last: Last::Nothing }
    }

    /// Writes a piece. A closed pipe is not an error.
    pub(super) fn piece(&mut self, piece: &Piece) -> io::Result<()> {
        let text = self.render(piece);
        write(&text)
    }

    /// Ends the answer's line.
    pub(super) fn end(&mut self) -> io::Result<()> {
        let reset = if self.colours && self.last == Last::Reasoning { RESET } else { "" };
        let text = if self.last == Last::Nothing { String::new() } else { format!("{reset}\n") };
        self.last = Last::Nothing;
        write(&text)
    }

    /// A remark of the program about the answer, dimmed.
    pub(super) fn remark(&self, text: &str) -> io::Result<()> {
        if !self.shows_reasoning || text.is_empty() {
            return Ok(());
        }
        let text = visible(text);
        write(&if self.colours { format!("{DIM}{text}{RESET}\n") } else { format!("{text}\n") })
    }

    fn render(&mut self, piece: &Piece) -> String {
        let (now, text) = match piece {
            Piece::Reasoning(_) if !self.shows_reasoning => return String::new(),
            Piece::Reasoning(text) => (Last::Reasoning, text),
            Piece::Text(text) => (Last::Text, text),
            // The sign of a prompt that is being read shows it.
            Piece::Progress(_) => return String::new(),
        };
        let (dim, reset) = if self.colours { (DIM, RESET) } else { ("", "") };
        let change = match (std::mem::replace(&mut self.last, now), now) {
            (Last::Nothing | Last::Text, Last::Reasoning) => dim.to_owned(),
            (Last::Reasoning, Last::Text) => format!("{reset}\n\n"),
            _ => String::new(),
        };
        // Models write a line break between reasoning and answer, which would be a third one here.
        let text = if change.ends_with('\n') { text.trim_start_matches('\n') } else { text };
        change + &visible(text)
    }
}

/// The text without control characters other than line breaks and tabs.
fn visible(text: &str) -> String {
    let replaced = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    text.chars().map(|letter| if replaced(letter) { '\u{fffd}' } else { letter }).collect()
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(colours: bool, shows_reasoning: bool) -> String {
        let mut transcript = Transcript::new(colours, shows_reasoning);
        let pieces = [
            Piece::Reasoning("h".to_owned()),
            Piece::Reasoning("m".to_owned()),
            Piece::Text("\n4\u{1b}[2J".to_owned()),
            Piece::Text("\n!".to_owned()),
        ];
        pieces.iter().map(|piece| transcript.render(piece)).collect()
    }

    #[test]
    fn reasoning_is_dimmed_and_the_answer_is_not() {
        assert_eq!(rendered(true, true), "\x1b[2mhm\x1b[0m\n\n4\u{fffd}[2J\n!");
        assert_eq!(rendered(false, true), "hm\n\n4\u{fffd}[2J\n!");
    }

    #[test]
    fn a_pipe_gets_the_answer_alone() {
        assert_eq!(rendered(false, false), "\n4\u{fffd}[2J\n!");
    }
}
