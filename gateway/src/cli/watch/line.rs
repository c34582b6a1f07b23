//! A line of the page: pieces of text with a tone, cut to the width of the terminal. Pure.

use super::super::output::replace_control_chars;

/// The tone of a piece, which colours show and which changes no letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
}

/// A line under construction.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PageLine(Vec<(Tone, String)>);

// === impl Tone ===

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[1;31m",
        }
    }
}

// === impl PageLine ===

impl PageLine {
    /// A line of one piece.
    pub(super) fn new(tone: Tone, text: &str) -> Self {
        Self::default().with(tone, text)
    }

    /// The line with one more piece. Control characters are replaced, since the text may come from another process.
    pub(super) fn with(mut self, tone: Tone, text: &str) -> Self {
        self.0.push((tone, replace_control_chars(text)));
        self
    }

    /// The columns of the whole line.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| console::measure_text_width(text)).sum()
    }

    /// The line as text of at most `columns` columns, with escape sequences if it may have `colours`.
    pub(super) fn render(&self, columns: usize, colours: bool) -> String {
        let is_cut = self.width() > columns;
        let mut left = if is_cut { columns.saturating_sub(1) } else { columns };
        let mut rendered = String::new();
        for (tone, text) in &self.0 {
            let (part, width) = beginning(text, left);
            left -= width;
            let is_whole = part.len() == text.len();
            let part = if is_whole && left > 0 { part } else { part.trim_end() };
            match tone.code() {
                code if colours && !code.is_empty() && !part.is_empty() => {
                    rendered.extend([code, part, "\x1b[0m"]);
                }
                _ => rendered.push_str(part),
            }
            if !is_whole {
                break;
            }
        }
        if is_cut { rendered + "…" } else { rendered.trim_end().to_owned() }
    }
}

/// As many letters of `text` as `columns` columns hold, and their width. Letters of some scripts take two columns.
fn beginning(text: &str, columns: usize) -> (&str, usize) {
    let mut width = 0;
    for (at, letter) in text.char_indices() {
        let more = console::measure_text_width(letter.encode_utf8(&mut [0; 4]));
        if width + more > columns {
            return (&text[..at], width);
        }
        width += more;
    }
    (text, width)
}

/// The words of `text` in lines of at most `columns` columns. A longer word has a line of its own.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        let width = console::measure_text_width(line);
        if width > 0 && width + 1 + console::measure_text_width(word) > columns {
            lines.push(word.to_owned());
        } else {
            if width > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_columns_and_colours_are_around_what_is_left() {
        let line = PageLine::new(Tone::Good, "serving").with(Tone::Plain, "  größe 模型");
        assert_eq!(line.render(80, false), "serving  größe 模型");
        assert_eq!(line.render(80, true), "\x1b[32mserving\x1b[0m  größe 模型");
        assert_eq!(line.render(18, false), "serving  größe 模…");
        assert_eq!(line.render(4, true), "\x1b[32mser\x1b[0m…");
        assert_eq!(PageLine::new(Tone::Dim, "a\u{1b}[2J").render(9, false), "a\u{fffd}[2J");
        assert_eq!(line.render(0, false), "…");
    }

    #[test]
    fn sentences_are_wrapped_at_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible", 4), ["incomprehensible"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
