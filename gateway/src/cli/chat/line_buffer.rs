//! The line that is being written: its text, the cursor, and the lines before, which the arrow keys bring back. Pure.

use console::Key;

/// The line, and the place of the cursor in it, in characters.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    text: Vec<char>,
    cursor: usize,
    /// The line of the history that is shown, counted from the newest, and the text that was written before.
    recalled: Option<(usize, Vec<char>)>,
}

/// The effect of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edit {
    /// The line goes on.
    Goes,
    /// The line is written.
    Written(String),
    /// Ctrl-C took it back.
    Dropped,
    /// Ctrl-D on an empty line.
    End,
}

const CTRL_B: char = '\u{2}';
const CTRL_D: char = '\u{4}';
const CTRL_F: char = '\u{6}';
const CTRL_K: char = '\u{b}';
const CTRL_N: char = '\u{e}';
const CTRL_P: char = '\u{10}';
const CTRL_U: char = '\u{15}';
const CTRL_W: char = '\u{17}';

// === impl LineBuffer ===

impl LineBuffer {
    /// Takes a key. `history` has the lines before, the newest last.
    pub(super) fn press(&mut self, key: &Key, history: &[String]) -> Edit {
        match key {
            Key::Enter => return Edit::Written(self.text.iter().collect()),
            Key::CtrlC => return Edit::Dropped,
            Key::Char(CTRL_D) if self.text.is_empty() => return Edit::End,
            Key::Char(CTRL_D) | Key::Del => self.remove(self.cursor),
            Key::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.remove(self.cursor);
            }
            Key::ArrowLeft | Key::Char(CTRL_B) => self.cursor = self.cursor.saturating_sub(1),
            Key::ArrowRight | Key::Char(CTRL_F) => self.cursor = (self.cursor + 1).min(self.text.len()),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.text.len(),
            Key::ArrowUp | Key::Char(CTRL_P) => {
                self.recall(history, self.recalled.as_ref().map_or(0, |(at, _)| at + 1));
            }
            Key::ArrowDown | Key::Char(CTRL_N) => self.recall_newer(history),
            Key::Char(CTRL_K) => self.text.truncate(self.cursor),
            Key::Char(CTRL_U) => self.remove_to(0),
            Key::Char(CTRL_W) => self.remove_to(self.word_start()),
            Key::Char(letter) if !letter.is_control() => {
                self.text.insert(self.cursor, *letter);
                self.cursor += 1;
            }
            _ => {}
        }
        Edit::Goes
    }

    /// The part of the line that a place of `columns` characters shows, and the cursor's place in it.
    pub(super) fn window(&self, columns: usize) -> (String, usize) {
        let begin = (self.cursor + 1).saturating_sub(columns.max(1));
        let shown = self.text.iter().skip(begin).take(columns).collect();
        (shown, self.cursor - begin)
    }

    fn remove(&mut self, at: usize) {
        if at < self.text.len() {
            self.text.remove(at);
        }
    }

    fn remove_to(&mut self, begin: usize) {
        self.text.drain(begin..self.cursor);
        self.cursor = begin;
    }

    /// The beginning of the word before the cursor.
    fn word_start(&self) -> usize {
        let before = &self.text[..self.cursor];
        let end = before.iter().rposition(|letter| !letter.is_whitespace()).map_or(0, |at| at + 1);
        before[..end].iter().rposition(|letter| letter.is_whitespace()).map_or(0, |at| at + 1)
    }

    fn recall(&mut self, history: &[String], at: usize) {
        let Some(line) = history.len().checked_sub(at + 1).and_then(|index| history.get(index)) else { return };
        let written = self.recalled.take().map_or_else(|| std::mem::take(&mut self.text), |(_, written)| written);
        self.show(line.chars().collect());
        self.recalled = Some((at, written));
    }

    fn recall_newer(&mut self, history: &[String]) {
        match self.recalled.take() {
            Some((0, written)) => self.show(written),
            Some((at, written)) => {
                self.recalled = Some((at, written));
                self.recall(history, at - 1);
            }
            None => {}
        }
    }

    fn show(&mut self, text: Vec<char>) {
        self.cursor = text.len();
        self.text = text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line after these keys.
    fn line(keys: &[Key], history: &[&str]) -> String {
        let history: Vec<_> = history.iter().map(|&line| line.to_owned()).collect();
        let mut buffer = LineBuffer::default();
        for key in keys {
            assert_eq!(buffer.press(key, &history), Edit::Goes);
        }
        let Edit::Written(line) = buffer.press(&Key::Enter, &history) else { panic!("not written") };
        line
    }

    fn keys(text: &str) -> Vec<Key> {
        text.chars().map(Key::Char).collect()
    }

    #[test]
    fn letters_come_and_go_at_the_cursor() {
        let typed = |more: &[Key]| line(&[keys("größe 12"), more.to_vec()].concat(), &[]);
        assert_eq!(typed(&[Key::ArrowLeft, Key::ArrowLeft, Key::Char('x'), Key::Del]), "größe x2");
        assert_eq!(typed(&[Key::Home, Key::Backspace, Key::Del, Key::End, Key::Char('!')]), "röße 12!");
        assert_eq!(typed(&[Key::Char(CTRL_W), Key::Char(CTRL_W), Key::Char('a')]), "a");
        assert_eq!(typed(&[Key::Home, Key::ArrowRight, Key::Char(CTRL_K), Key::Char('\u{1b}')]), "g");
        assert_eq!(typed(&[Key::ArrowLeft, Key::Char(CTRL_U)]), "2");
    }

    #[test]
    fn the_arrows_bring_back_lines_and_then_what_was_begun() {
        let history = ["one", "two"];
        let (up, down) = (Key::ArrowUp, Key::ArrowDown);
        assert_eq!(line(&[keys("new"), vec![up.clone()]].concat(), &history), "two");
        assert_eq!(line(&[up.clone(), up.clone(), up.clone()], &history), "one");
        let back = [keys("new"), vec![up.clone(), up, down.clone(), down.clone(), down]].concat();
        assert_eq!(line(&back, &history), "new");
        assert_eq!(line(&[Key::ArrowUp], &[]), "");
    }

    #[test]
    fn a_long_line_is_shown_around_its_cursor() {
        let mut buffer = LineBuffer::default();
        keys("0123456789").into_iter().for_each(|key| drop(buffer.press(&key, &[])));
        assert_eq!(buffer.window(20), ("0123456789".to_owned(), 10));
        assert_eq!(buffer.window(5), ("6789".to_owned(), 4));
        buffer.press(&Key::Home, &[]);
        assert_eq!(buffer.window(5), ("01234".to_owned(), 0));
    }

    #[test]
    fn control_c_drops_a_line_and_control_d_ends_on_an_empty_one() {
        let mut buffer = LineBuffer::default();
        assert_eq!(buffer.press(&Key::CtrlC, &[]), Edit::Dropped);
        assert_eq!(buffer.press(&Key::Char(CTRL_D), &[]), Edit::End);
        buffer.press(&Key::Char('a'), &[]);
        assert_eq!(buffer.press(&Key::Char(CTRL_D), &[]), Edit::Goes);
    }
}
