//! Words for people: answers to stdout, complaints to stderr.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};

use schema::HumanBytes;

/// Writes an answer to stdout. A reader that went away (`baton models | head -1`) is no error.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes an error and what caused it to stderr, once.
pub(super) fn complain(error: &dyn Error) {
    // With stderr closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "error: {}", chain(error));
}

/// An error and its causes in one line, outermost first.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some errors repeat their cause in their own words.
        if !text.ends_with(&said) {
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    text
}

/// Text from other processes without what could steer a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// A number of bytes for people.
pub(super) fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

/// A rate in billions.
pub(super) fn billions(rate: u64) -> String {
    format!("{:.1}", rate as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_and_repetitions_do_not() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot start")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("request error: not found")]
        struct Middle(#[source] io::Error);
        let error = Outer(Middle(io::Error::other("not found")));
        assert_eq!(chain(&error), "cannot start: request error: not found");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
