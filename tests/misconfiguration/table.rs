//! The table of results, one line per row.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::case::Found;

/// Longest part of a cell that is shown, in characters.
const CELL_CHARS_MAX: usize = 220;

/// The rows in order. The table is also shown if a panic drops it.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Found>,
    shown: bool,
}

// === impl Table ===

impl Table {
    pub(crate) fn add(&mut self, row: Found) {
        self.rows.push(row);
    }

    /// Prints the table past the test harness, which shows output only of failed tests, and writes it to the target
    /// folder.
    pub(crate) fn show(&mut self) {
        self.shown = true;
        let text = self.render();
        let _ = writeln!(std::io::stderr(), "{text}");
        let builds = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let _ = builds.map(|builds| std::fs::write(builds.join("misconfiguration.md"), &text));
    }

    fn render(&self) -> String {
        let mut text =
            "| | mistake | /health | status | doctor | exit | last line | s |\n|---|---|---|---|---|---|---|---|\n"
                .to_owned();
        for (at, row) in self.rows.iter().enumerate() {
            let _ = match &row.skipped {
                Some(why) => writeln!(text, "| {} | {} | SKIPPED: {} | | | | | |", at + 1, row.name, cell(why)),
                None => writeln!(
                    text,
                    "| {} | {} | {} | {} | {} | {} | {} | {:.1} |",
                    at + 1,
                    row.name,
                    cell(&row.health),
                    cell(&row.status),
                    cell(&row.doctor),
                    row.exit,
                    cell(&row.last_line),
                    row.took.as_secs_f64()
                ),
            };
        }
        text
    }

    /// The differences of the rows from their expected output.
    pub(crate) fn differences(&self) -> Vec<String> {
        let differing = self.rows.iter().filter(|row| !row.differs.is_empty());
        let describe = |row: &Found| {
            let Found { name, differs, health, status, doctor, exit, last_line, .. } = row;
            format!("{name}: {}\n  {health}\n  {status}\n  {doctor}\n  {exit}: {last_line}", differs.join("; "))
        };
        differing.map(describe).collect()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if !self.shown {
            self.show();
        }
    }
}

fn cell(text: &str) -> String {
    let text: String =
        text.chars().map(|letter| if letter == '|' || letter.is_control() { ' ' } else { letter }).collect();
    let Some((cut, _)) = text.char_indices().nth(CELL_CHARS_MAX) else { return text };
    format!("{}…", &text[..cut])
}
