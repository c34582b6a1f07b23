//! Output for people: results on stdout, errors on stderr.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;

use schema::HumanBytes;
use serde::Serialize;

pub(super) use crate::error_chain::chain;

/// Writes a result to stdout. A closed pipe (`baton models | head -1`) is not an error.
pub(super) fn print(text: &str) -> io::Result<()> {
    print_part(text).map(drop)
}

/// Writes a part of a result that goes on. A closed pipe breaks it off: nobody reads the rest.
pub(super) fn print_part(text: &str) -> io::Result<ControlFlow<()>> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error),
    }
}

/// A value as indented JSON with a newline at the end.
pub(super) fn json(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value).map_err(io::Error::other)? + "\n")
}

/// Writes an error, its causes, and what to do next to stderr, once.
pub(super) fn print_error(error: &dyn Error, advice: Option<&str>) {
    let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
    // If stderr is closed, the error cannot be shown.
    let _ = writeln!(io::stderr(), "error: {}{advice}", chain(error));
}

/// Replaces control characters, because text from other processes could control the terminal with them.
pub(super) fn replace_control_chars(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// A number of bytes with a binary unit.
pub(super) fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

/// The units of a time, with their seconds.
pub(super) const TIME_UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600)];

/// A time in its largest unit.
pub(super) fn time(seconds: u64) -> String {
    let (unit, size) = TIME_UNITS.iter().rev().find(|(_, size)| seconds >= *size).unwrap_or(&TIME_UNITS[0]);
    format!("{}{unit}", seconds / size)
}

/// A rate divided by 10^9, with one decimal.
pub(super) fn billions(rate: u64) -> String {
    format!("{:.1}", rate as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(replace_control_chars("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
