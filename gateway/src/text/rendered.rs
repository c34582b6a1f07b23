//! A rendered prompt, with the parts of its text that came from messages.
//!
//! A chat template mixes its own text, in which control tokens count, with text of clients, which must stay text even
//! if it spells `<|im_end|>`: messages, results of tools, descriptions and schemas of tools, arguments of calls, names,
//! and the template's own variables. The template may do anything to a text (trim it, quote it, leave it out), so its
//! place in the prompt cannot be computed. It is found by rendering again with the texts **marked**:
//!
//! 1. Render as is. The result is the prompt, exactly as the model's authors wrote the template.
//! 2. Render with two private-use characters, which occur in no input, around every text. They sit inside leading and
//!    trailing white space, so that trimming takes the same characters as before. If the result without the marks
//!    equals the prompt, the text between marks is client text, and all other text is the template's.
//! 3. If it does not (the template looks at names or types), render with all texts marked but single words outside of
//!    messages, which no template makes control tokens of. Keys of objects are marked only if they are no words,
//!    because templates look values up by them.
//! 4. If it still does not (the template cuts a message up or looks at its first words), render with marks only around
//!    control tokens spelled in texts, and around the first or last character of a text if it could complete a control
//!    token together with the adjacent text.
//! 5. If even this changes the prompt, the request is refused: it spells control tokens in a text that the template
//!    takes apart.
//!
//! Not covered: a control token that only results because the template deletes characters *inside* a text and treats
//! marked texts differently. No known template does this. One would have to be written for the purpose.

use std::ops::Range;

/// A prompt, with the parts that are client text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    /// Byte ranges in which nothing is a control token, ascending and disjoint.
    plain: Vec<Range<usize>>,
}

/// Two characters that occur in none of the rendering's inputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    open: char,
    close: char,
}

// === impl Rendered ===

impl Rendered {
    /// The whole prompt.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The byte ranges of [`Self::text`] that clients wrote, ascending and disjoint.
    #[must_use]
    pub fn plain(&self) -> &[Range<usize>] {
        &self.plain
    }

    /// Cuts the prompt off behind its first `bytes` bytes, which end with a character.
    pub(super) fn truncate(&mut self, bytes: usize) {
        self.text.truncate(bytes);
        self.plain.retain(|range| range.start <= bytes);
        if let Some(last) = self.plain.last_mut() {
            last.end = last.end.min(bytes);
        }
    }

    /// Removes the marks from `marked`. `None` if they do not come in pairs.
    pub(super) fn unmark(marked: &str, marks: Marks) -> Option<Self> {
        let mut rendered = Self { text: String::with_capacity(marked.len()), plain: Vec::new() };
        let mut opened = None;
        for character in marked.chars() {
            let here = rendered.text.len();
            match (opened, character) {
                (None, character) if character == marks.open => opened = Some(here),
                (Some(start), character) if character == marks.close => {
                    rendered.plain.push(start..here);
                    opened = None;
                }
                (_, character) if character == marks.open || character == marks.close => return None,
                (_, character) => rendered.text.push(character),
            }
        }
        opened.is_none().then_some(rendered)
    }
}

// === impl Marks ===

impl Marks {
    /// The first two private-use characters that occur in none of `texts`. `None` if fewer than two of the 6,400 are
    /// unused.
    pub(super) fn absent_from<'t>(texts: impl Iterator<Item = &'t str>) -> Option<Self> {
        let private = '\u{E000}'..='\u{F8FF}';
        let mut used = std::collections::HashSet::new();
        used.extend(texts.flat_map(str::chars).filter(|character| private.contains(character)));
        let mut free = private.filter(|character| !used.contains(character));
        Some(Self { open: free.next()?, close: free.next()? })
    }

    /// `content` with marks around its text as a whole.
    pub(super) fn around(self, content: &str) -> String {
        let text = core(content);
        if text.is_empty() { content.to_owned() } else { self.insert(content, std::slice::from_ref(&text)) }
    }

    /// `content` with marks around the parts that spell a token of `control` or could be part of one.
    pub(super) fn around_control(self, content: &str, control: &[String]) -> String {
        self.insert(content, &risks(content, control))
    }

    fn insert(self, content: &str, ranges: &[Range<usize>]) -> String {
        let mut marked = String::with_capacity(content.len() + 6 * ranges.len());
        let mut done = 0;
        for range in ranges {
            marked.push_str(&content[done..range.start]);
            marked.push(self.open);
            marked.push_str(&content[range.clone()]);
            marked.push(self.close);
            done = range.end;
        }
        marked.push_str(&content[done..]);
        marked
    }
}

/// `content` without leading and trailing white space.
fn core(content: &str) -> Range<usize> {
    let start = content.len() - content.trim_start().len();
    start..start.max(content.trim_end().len())
}

/// The byte ranges of `content` that spell a token of `control`, or a part of one that the adjacent text could
/// complete. They are ascending and disjoint.
fn risks(content: &str, control: &[String]) -> Vec<Range<usize>> {
    let core = core(content);
    let text = &content[core.clone()];
    let mut found: Vec<Range<usize>> = Vec::new();
    let Some((first, last)) = text.chars().next().zip(text.chars().next_back()) else { return found };
    let first = 0..first.len_utf8();
    let last = text.len() - last.len_utf8()..text.len();
    for token in control.iter().filter(|token| !token.is_empty()) {
        let step = token.chars().next().map_or(1, char::len_utf8);
        let mut from = 0;
        while let Some(at) = text[from..].find(token.as_str()) {
            found.push(from + at..from + at + token.len());
            from += at + step;
        }
        let cuts = || token.char_indices().map(|(at, _)| at).skip(1);
        if cuts().any(|at| text.starts_with(&token[at..])) {
            found.push(first.clone());
        }
        if cuts().any(|at| text.ends_with(&token[..at])) {
            found.push(last.clone());
        }
        if text.len() < token.len() && token.contains(text) {
            found.push(0..text.len());
        }
    }
    let shifted = found.into_iter().map(|range| range.start + core.start..range.end + core.start);
    merge(shifted.collect())
}

/// Joins ranges that overlap or touch.
fn merge(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { open: '[', close: ']' };

    fn control(content: &str) -> String {
        MARKS.around_control(content, &["<|end|>".to_owned(), "<|user|>".to_owned()])
    }

    #[test]
    fn marks_are_characters_that_no_input_holds() {
        let marks = Marks::absent_from(["a\u{E000}", "\u{E002}b"].into_iter()).unwrap();
        assert_eq!((marks.open, marks.close), ('\u{E001}', '\u{E003}'));
        let all: String = ('\u{E000}'..='\u{F8FE}').collect();
        assert!(Marks::absent_from([all.as_str()].into_iter()).is_none());
    }

    #[test]
    fn marks_sit_inside_white_space() {
        assert_eq!(MARKS.around(" \n a b\t"), " \n [a b]\t");
        assert_eq!(MARKS.around(" \n"), " \n");
        assert_eq!(MARKS.around(""), "");
    }

    #[test]
    fn unmarking_gives_the_text_and_the_plain_ranges() {
        let rendered = Rendered::unmark("<u>[é b] c[]d", MARKS).unwrap();
        assert_eq!(rendered.text(), "<u>é b cd");
        assert_eq!(rendered.plain(), [3..7, 9..9]);
    }

    #[test]
    fn marks_that_do_not_pair_up_are_refused() {
        for marked in ["[a", "a]", "[[a]]", "[a]]"] {
            assert!(Rendered::unmark(marked, MARKS).is_none(), "{marked}");
        }
    }

    #[test]
    fn spelled_control_tokens_are_marked_and_nothing_else() {
        assert_eq!(control("a<|end|>b <|end|><|user|> c"), "a[<|end|>]b [<|end|><|user|>] c");
        assert_eq!(control("if a < b || b > c"), "if a < b || b > c");
    }

    #[test]
    fn prefixes_and_suffixes_that_adjacent_text_could_complete_are_marked() {
        assert_eq!(control("write <|en "), "write <|e[n] ");
        assert_eq!(control(" d|> it"), " [d]|> it");
        assert_eq!(control("user"), "[user]");
        assert_eq!(control("nd"), "[nd]");
    }

    #[test]
    fn overlapping_spellings_are_marked_as_one() {
        let control = ["aXa".to_owned()];
        assert_eq!(MARKS.around_control("b aXaXa b", &control), "b [aXaXa] b");
    }
}
