//! Turns a stream of token ids into text, one id at a time.
//!
//! A token is a run of bytes and may end in the middle of a character. An incomplete character is held back until its
//! other bytes arrive, so that the returned pieces always add up to the text of all tokens together. One that is still
//! incomplete when a sequence ends is no text.

use std::sync::Arc;

use super::pieces::Pieces;
use super::tokenizer::Tokenizer;

/// An incremental decoder of one sequence.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    pieces: Arc<Pieces>,
    /// The beginning of a character whose rest has not arrived: at most 3 bytes between calls.
    held: Vec<u8>,
}

impl Detokenizer {
    /// A decoder at the start of a sequence.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { pieces: tokenizer.pieces(), held: Vec::new() }
    }

    /// The text that token `id` completes. It is empty if `id` completes none, is a control token or is no token at
    /// all.
    ///
    /// Bytes that can never become a character are returned as U+FFFD at once.
    pub fn push(&mut self, id: u32) -> String {
        let pieces = Arc::clone(&self.pieces);
        self.push_bytes(pieces.get(id))
    }

    /// The text of a character that never becomes complete, because something else comes in its middle: empty, or one
    /// U+FFFD.
    pub(super) fn interrupt(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.held.clear();
                    return text;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = error.error_len() else {
                        self.held = after.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[bad..];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::vocabulary_fields::VocabularyFields;
    use crate::text::{Special, Vocabulary};
    use proptest::prelude::*;

    /// A vocabulary of the 256 bytes (ids 0..256) and one control token (id 256).
    fn tokenizer() -> Tokenizer {
        Tokenizer::new(&Vocabulary::new(VocabularyFields::bytes_and(&["<|end|>"])).unwrap()).unwrap()
    }

    fn feed(detokenizer: &mut Detokenizer, bytes: &[u8]) -> Vec<String> {
        bytes.iter().map(|&byte| detokenizer.push(u32::from(byte))).collect()
    }

    #[test]
    fn an_incomplete_character_is_held_back_until_it_is_complete() {
        let mut detokenizer = Detokenizer::new(&tokenizer());
        assert_eq!(feed(&mut detokenizer, "é🙂x".as_bytes()), ["", "é", "", "", "", "🙂", "x"]);
        assert_eq!(detokenizer.interrupt(), "");
    }

    #[test]
    fn a_character_that_is_interrupted_becomes_one_replacement() {
        let mut detokenizer = Detokenizer::new(&tokenizer());
        assert_eq!(feed(&mut detokenizer, &[b'a', 0xF0, 0x9F]), ["a", "", ""]);
        assert_eq!(detokenizer.interrupt(), "\u{FFFD}");
        assert_eq!(detokenizer.interrupt(), "");
    }

    #[test]
    fn invalid_bytes_do_not_hold_back_later_text() {
        let mut detokenizer = Detokenizer::new(&tokenizer());
        assert_eq!(feed(&mut detokenizer, &[0xFF, b'a', 0xE2, b'b']), ["\u{FFFD}", "a", "", "\u{FFFD}b"]);
    }

    #[test]
    fn control_tokens_and_ids_outside_the_vocabulary_have_no_text() {
        let mut detokenizer = Detokenizer::new(&tokenizer());
        assert_eq!(detokenizer.push(256), "");
        assert_eq!(detokenizer.push(257), "");
        assert_eq!(detokenizer.push(u32::MAX), "");
    }

    proptest! {
        #[test]
        fn the_pieces_add_up_to_the_text(text in "\\PC{0,40}") {
            let tokenizer = tokenizer();
            let mut detokenizer = Detokenizer::new(&tokenizer);
            let ids = tokenizer.encode(&text, Special::Plain).unwrap();
            let mut joined: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
            joined.push_str(&detokenizer.interrupt());
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn any_bytes_add_up_to_their_lossy_decoding(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut detokenizer = Detokenizer::new(&tokenizer());
            let mut joined = feed(&mut detokenizer, &bytes).concat();
            joined.push_str(&detokenizer.interrupt());
            prop_assert_eq!(joined, String::from_utf8_lossy(&bytes));
        }
    }
}
