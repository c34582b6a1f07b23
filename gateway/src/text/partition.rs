//! Finds whole tokens in text before it is split into words: control tokens and tokens added by hand.
//!
//! Longer tokens are searched first, over the whole text, as in llama.cpp. The order matters only if the spellings of
//! two tokens overlap. A control token is found only in text that may hold one: it must not touch a plain range.

use std::ops::Range;

use super::token_kind::TokenKind;
use super::vocabulary::Vocabulary;

/// The tokens that are searched for as a whole.
#[derive(Debug)]
pub(super) struct Partition {
    /// Longest first.
    tokens: Vec<Whole>,
}

#[derive(Debug)]
struct Whole {
    spelling: String,
    id: u32,
    control: bool,
    /// True if it takes the white space before it.
    strips_left: bool,
    /// True if it takes the white space after it.
    strips_right: bool,
}

/// A part of a text by its bytes: a token found there, or text that may still have one.
struct Piece {
    range: Range<usize>,
    token: Option<u32>,
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    /// Text that is still to be tokenized.
    Text(&'t str),
    /// A token found as a whole.
    Token(u32),
}

// === impl Partition ===

impl Partition {
    /// The whole tokens of `vocabulary`.
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let mut tokens = Vec::new();
        for (id, (spelling, kind)) in (0_u32..).zip(vocabulary.tokens()) {
            let whole = kind.is_control() || kind == TokenKind::UserDefined;
            if whole && !spelling.is_empty() {
                tokens.push(Whole {
                    spelling: spelling.to_owned(),
                    id,
                    control: kind.is_control(),
                    strips_left: vocabulary.strips().left.contains(&id),
                    strips_right: vocabulary.strips().right.contains(&id),
                });
            }
        }
        tokens.sort_by_key(|token| std::cmp::Reverse(token.spelling.len()));
        Self { tokens }
    }

    /// Cuts `text` at the tokens found in it.
    ///
    /// `plain` are ascending byte ranges that no control token may lie in or reach into. An empty range is a barrier
    /// that no control token may span.
    pub(super) fn cut<'t>(&self, text: &'t str, plain: &[Range<usize>]) -> Vec<Fragment<'t>> {
        let mut pieces = vec![Piece { range: 0..text.len(), token: None }];
        for token in &self.tokens {
            // Most tokens do not occur in the text. Only those that do cost more than this search.
            if !text.contains(&token.spelling) {
                continue;
            }
            let mut finer = Vec::with_capacity(pieces.len());
            for piece in pieces {
                match piece.token {
                    Some(_) => finer.push(piece),
                    None => token.cut(text, piece.range, plain, &mut finer),
                }
            }
            pieces = finer;
        }
        let fragment = |piece: Piece| match piece.token {
            Some(id) => Fragment::Token(id),
            None => Fragment::Text(&text[piece.range]),
        };
        pieces.into_iter().filter(|piece| !piece.range.is_empty()).map(fragment).collect()
    }
}

// === impl Whole ===

impl Whole {
    /// Cuts `text[range]` at this token, appending the parts to `pieces`.
    fn cut(&self, text: &str, range: Range<usize>, plain: &[Range<usize>], pieces: &mut Vec<Piece>) {
        let mut done = range.start;
        let mut from = range.start;
        while let Some(at) = text[from..range.end].find(&self.spelling) {
            let found = from + at..from + at + self.spelling.len();
            if self.control && touches(&found, plain) {
                from = found.start + text[found.start..].chars().next().map_or(1, char::len_utf8);
                continue;
            }
            pieces.push(Piece { range: done..self.start(text, done, found.start), token: None });
            done = self.end(text, found.end, range.end);
            from = done;
            pieces.push(Piece { range: found, token: Some(self.id) });
        }
        pieces.push(Piece { range: done..range.end, token: None });
    }

    /// The end of the text before a token at `found`, which begins at `from`.
    fn start(&self, text: &str, from: usize, found: usize) -> usize {
        if self.strips_left { from + text[from..found].trim_end_matches(is_space).len() } else { found }
    }

    /// The beginning of the text after a token that ends at `found`, which ends at `to`.
    fn end(&self, text: &str, found: usize, to: usize) -> usize {
        if self.strips_right { to - text[found..to].trim_start_matches(is_space).len() } else { found }
    }
}

/// The white space that some tokens take: that of C's `isspace`, as in llama.cpp.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}

fn touches(found: &Range<usize>, plain: &[Range<usize>]) -> bool {
    let next = plain.partition_point(|range| range.end <= found.start);
    plain.get(next).is_some_and(|range| range.start < found.end)
}

#[cfg(test)]
mod tests {
    use super::Fragment::{Text, Token};
    use super::*;
    use crate::text::vocabulary_fields::VocabularyFields;

    /// `<a>` is 256 and `<a><b>` is 257, both control tokens. `tag` is 258, added by hand.
    fn partition() -> Partition {
        let mut fields = VocabularyFields::bytes_and(&["<a>", "<a><b>", "tag"]);
        fields.token_types[258] = 4;
        Partition::new(&Vocabulary::new(fields).unwrap())
    }

    #[test]
    fn the_longer_token_is_found_first() {
        assert_eq!(partition().cut("x<a><b><a>y", &[]), [Text("x"), Token(257), Token(256), Text("y")]);
    }

    #[test]
    fn a_control_token_that_lies_in_or_reaches_into_plain_text_is_text() {
        let partition = partition();
        for plain in [0..3, 0..1, 2..3, 1..2, 1..1, 2..9] {
            assert_eq!(partition.cut("<a>", std::slice::from_ref(&plain)), [Text("<a>")], "{plain:?}");
        }
        for plain in [0..0, 3..3, 3..9] {
            assert_eq!(partition.cut("<a>", std::slice::from_ref(&plain)), [Token(256)], "{plain:?}");
        }
    }

    #[test]
    fn only_the_plain_occurrence_stays_text() {
        let plain = 3..6;
        assert_eq!(partition().cut("<a><a><a>", std::slice::from_ref(&plain)), [Token(256), Text("<a>"), Token(256)]);
    }

    #[test]
    fn a_token_added_by_hand_is_found_in_plain_text_too() {
        let plain = 0..9;
        assert_eq!(partition().cut("a tag<a>", std::slice::from_ref(&plain)), [Text("a "), Token(258), Text("<a>")]);
    }

    #[test]
    fn white_space_beside_a_token_goes_with_it_if_the_model_says_so() {
        let mut fields = VocabularyFields::bytes_and(&["<a>", "<b>"]);
        fields.strips.right = vec![256];
        fields.strips.left = vec![257];
        let partition = Partition::new(&Vocabulary::new(fields).unwrap());
        let text = " <a> \n x\t<b> <a>\u{A0}<a> ";
        let expected =
            [Text(" "), Token(256), Text("x"), Token(257), Text(" "), Token(256), Text("\u{A0}"), Token(256)];
        assert_eq!(partition.cut(text, &[]), expected);
    }

    #[test]
    fn empty_text_has_no_fragments() {
        assert_eq!(partition().cut("", &[]), []);
    }
}
