//! A table of text with aligned columns.

use super::output::replace_control_chars;

/// Spaces between columns.
pub(super) const GAP: usize = 2;

/// A table under construction: a row of headings, then the rows.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

// === impl Table ===

impl Table {
    /// A table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row with a cell for each heading.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| replace_control_chars(&cell)).collect());
    }

    /// The columns that each column takes on a screen. Letters of some scripts take two.
    pub(super) fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        (0..columns).map(|column| cells(column).map(|cell| screen_width(cell)).max().unwrap_or(0)).collect()
    }

    /// Leaves away all columns but those `kept`.
    pub(super) fn keep(&mut self, kept: &[usize]) {
        for row in &mut self.rows {
            *row = kept.iter().filter_map(|column| row.get(*column).cloned()).collect();
        }
    }

    /// The table as text, with spaces between columns and a newline after each row.
    pub(super) fn render(&self) -> String {
        let widths = self.widths();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths);
            let padded = cells.map(|(cell, width)| cell.clone() + &" ".repeat(width + GAP - screen_width(cell)));
            format!("{}\n", padded.collect::<String>().trim_end())
        };
        self.rows.iter().map(line).collect()
    }
}

fn screen_width(text: &str) -> usize {
    console::measure_text_width(text)
}
