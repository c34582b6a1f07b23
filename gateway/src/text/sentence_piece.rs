//! SentencePiece's byte-pair encoding: text to tokens by the scores of the tokens.
//!
//! The characters of a text are joined step by step. Each step joins the two neighbours whose token has the best score,
//! of equal ones the leftmost. A character that is no token becomes one token for each of its bytes. The `tokenizers`
//! crate has no such model: its BPE takes a list of merges, and a list made from the scores puts the merges of equal
//! scores in an order, where the leftmost pair should be next.
//!
//! Of the tokens that a text spells only those of text count. llama.cpp also joins letters to a control token or to
//! `<0x0A>`, if their parts are tokens. SentencePiece does not, and no text of a client may become a control token.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::TextError;
use super::spelling::{SPACE, mark_spaces, named_byte};
use super::token_kind::TokenKind;
use super::vocabulary::Vocabulary;

/// The end of a chain of symbols.
const NONE: usize = usize::MAX;

/// The tokens of a SentencePiece vocabulary, with their scores.
#[derive(Debug)]
pub(super) struct SentencePiece {
    tokens: HashMap<Box<str>, (u32, f32)>,
    /// The tokens of single bytes.
    bytes: [Option<u32>; 256],
    /// The longest token, in bytes of its spelling.
    longest: usize,
    add_space_prefix: bool,
    remove_extra_whitespaces: bool,
}

/// A run of the text that is, so far, one token or one character. Empty once it has become a part of its left
/// neighbour.
struct Symbol {
    start: usize,
    end: usize,
    previous: usize,
    next: usize,
}

/// Two neighbours that make a token together.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Length of both when they were found. If it has changed, one of them has been joined with another since.
    bytes: usize,
}

// === impl SentencePiece ===

impl SentencePiece {
    /// The tokens of `vocabulary`.
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let mut bytes = [None; 256];
        let mut tokens: HashMap<Box<str>, _> = HashMap::with_capacity(vocabulary.len());
        for ((id, (token, kind)), score) in (0_u32..).zip(vocabulary.tokens()).zip(vocabulary.scores()) {
            match kind {
                TokenKind::Normal | TokenKind::UserDefined => {
                    // Minus zero equals zero, and sorts before it.
                    tokens.insert(Box::from(token), (id, score + 0.0));
                }
                TokenKind::Byte => {
                    if let Some(byte) = named_byte(token) {
                        bytes[usize::from(byte)] = Some(id);
                    }
                }
                TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => {}
            }
        }
        let longest = tokens.keys().map(|token| token.len()).max().unwrap_or(0);
        let normalizer = vocabulary.normalizer();
        Self {
            tokens,
            bytes,
            longest,
            add_space_prefix: normalizer.add_space_prefix.unwrap_or(true),
            remove_extra_whitespaces: normalizer.remove_extra_whitespaces.unwrap_or(false),
        }
    }

    /// True if a text gets a space in front.
    pub(super) fn adds_space(&self) -> bool {
        self.add_space_prefix
    }

    /// Appends the tokens of `text` to `ids`. `begins` is true at the beginning of a text and after a token that was
    /// found as a whole.
    ///
    /// # Errors
    /// [`TextError::Unspellable`] when a character has no token, and its bytes have none either.
    pub(super) fn encode(&self, text: &str, begins: bool, ids: &mut Vec<u32>) -> Result<(), TextError> {
        let mut marked = String::with_capacity(text.len() + text.len() / 2);
        if begins && self.add_space_prefix {
            marked.push_str(SPACE);
        }
        if self.remove_extra_whitespaces {
            let words = text.split(' ').filter(|word| !word.is_empty());
            marked.push_str(&words.collect::<Vec<_>>().join(SPACE));
        } else {
            marked.push_str(&mark_spaces(text));
        }
        for symbol in self.join(&marked).iter().filter(|symbol| symbol.start < symbol.end) {
            self.token(&marked[symbol.start..symbol.end], ids)?;
        }
        Ok(())
    }

    /// The symbols of `text` after all joins.
    fn join(&self, text: &str) -> Vec<Symbol> {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        for (start, character) in text.char_indices() {
            let index = symbols.len();
            let end = start + character.len_utf8();
            symbols.push(Symbol { start, end, previous: index.wrapping_sub(1), next: index + 1 });
        }
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let mut pairs = BinaryHeap::new();
        for left in 1..symbols.len() {
            pairs.extend(self.pair(text, &symbols, left - 1, left));
        }
        while let Some(Pair { left, right, bytes, .. }) = pairs.pop() {
            let (start, end) = (symbols[right].start, symbols[right].end);
            let joined = symbols[left].start == symbols[left].end || start == end;
            if joined || end - symbols[left].start != bytes {
                continue;
            }
            let next = symbols[right].next;
            symbols[right].end = start;
            symbols[left].end = end;
            symbols[left].next = next;
            if next != NONE {
                symbols[next].previous = left;
                pairs.extend(self.pair(text, &symbols, left, next));
            }
            let previous = symbols[left].previous;
            if previous != NONE {
                pairs.extend(self.pair(text, &symbols, previous, left));
            }
        }
        symbols
    }

    /// The neighbours `left` and `right`, if they make a token together.
    fn pair(&self, text: &str, symbols: &[Symbol], left: usize, right: usize) -> Option<Pair> {
        let both = symbols[left].start..symbols[right].end;
        let bytes = both.len();
        if bytes > self.longest {
            return None;
        }
        let (_, score) = *self.tokens.get(&text[both])?;
        Some(Pair { score, left, right, bytes })
    }

    /// Appends the token `spelled` to `ids`, or those of its bytes.
    fn token(&self, spelled: &str, ids: &mut Vec<u32>) -> Result<(), TextError> {
        if let Some((id, _)) = self.tokens.get(spelled) {
            ids.push(*id);
            return Ok(());
        }
        for byte in spelled.bytes() {
            let token = self.bytes[usize::from(byte)];
            ids.push(token.ok_or_else(|| TextError::Unspellable { found: spelled.replace(SPACE, " ") })?);
        }
        Ok(())
    }
}

// === impl Pair ===

/// The pair that is joined first is the greatest: that of the best score, of equal ones the leftmost.
impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::vocabulary_fields::VocabularyFields;

    fn model(pieces: &[(&str, f32)], set: impl Fn(&mut VocabularyFields)) -> (SentencePiece, Vocabulary) {
        let mut fields = VocabularyFields::pieces_and(pieces);
        set(&mut fields);
        let vocabulary = Vocabulary::new(fields).unwrap();
        (SentencePiece::new(&vocabulary), vocabulary)
    }

    fn spelled(model: &(SentencePiece, Vocabulary), text: &str, begins: bool) -> Vec<String> {
        let mut ids = Vec::new();
        model.0.encode(text, begins, &mut ids).unwrap();
        ids.iter().map(|&id| model.1.spelling(Some(id)).to_owned()).collect()
    }

    #[test]
    fn the_best_score_is_joined_first_and_of_equal_ones_the_leftmost() {
        let pieces = [("a", -9.0), ("b", -9.0), ("aa", -2.0), ("ab", -1.0), ("aab", -3.0)];
        let model = model(&pieces, |fields| fields.normalizer.add_space_prefix = Some(false));
        assert_eq!(spelled(&model, "aaab", true), ["aa", "ab"]);
        assert_eq!(spelled(&model, "aaa", true), ["aa", "a"]);
        assert_eq!(spelled(&model, "aab", true), ["aab"]);
    }

    #[test]
    fn zero_and_minus_zero_are_one_score() {
        let pieces = [("a", 0.0), ("b", 0.0), ("ab", -0.0), ("ba", 0.0)];
        let model = model(&pieces, |fields| fields.normalizer.add_space_prefix = Some(false));
        assert_eq!(spelled(&model, "aba", true), ["ab", "a"]);
    }

    #[test]
    fn a_text_gets_a_space_in_front_where_it_begins() {
        let model = model(&[("▁", -1.0), ("a", -1.0), ("▁a", -0.5)], |_| {});
        assert_eq!(spelled(&model, "a a", true), ["▁a", "▁a"]);
        assert_eq!(spelled(&model, "a a", false), ["a", "▁a"]);
        assert_eq!(spelled(&model, " a", true), ["▁", "▁a"]);
    }

    #[test]
    fn spaces_are_removed_only_if_the_file_says_so() {
        let pieces = [("▁", -1.0), ("a", -1.0)];
        let kept = model(&pieces, |_| {});
        assert_eq!(spelled(&kept, "  a   a ", true).concat(), "▁▁▁a▁▁▁a▁");
        let removed = model(&pieces, |fields| fields.normalizer.remove_extra_whitespaces = Some(true));
        assert_eq!(spelled(&removed, "  a   a ", true).concat(), "▁a▁a");
    }

    #[test]
    fn characters_without_a_token_become_bytes_and_are_refused_if_those_have_none() {
        let whole = model(&[], |fields| fields.normalizer.add_space_prefix = Some(false));
        assert_eq!(spelled(&whole, "é", true), ["<0xC3>", "<0xA9>"]);
        let cut = model(&[], |fields| fields.token_types[3 + 0xA9] = 5);
        let error = cut.0.encode("é", false, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "the vocabulary cannot spell \"é\"");
    }

    #[test]
    fn text_never_becomes_a_control_token_or_a_byte() {
        let pieces = [("<", -1.0), ("s", -1.0), (">", -1.0), ("<s", -0.5), ("<0x0A", -0.5), ("<0x", -0.4)];
        let more = [("0", -2.0), ("x", -2.0), ("A", -2.0), ("<0", -0.4), ("<0x0", -0.4)];
        let model = model(&[pieces.as_slice(), &more].concat(), |_| {});
        assert_eq!(spelled(&model, "<s>", false), ["<s", ">"]);
        assert_eq!(spelled(&model, "<0x0A>", false), ["<0x0A", ">"]);
    }
}
