//! Turns token ids into text in which some control tokens are spelled: the marks of calls and of reasoning, which the
//! parser of answers looks for. All other control tokens add no text.

use std::sync::Arc;

use super::detokenizer::Detokenizer;
use super::tokenizer::Tokenizer;
use super::vocabulary::Vocabulary;

/// The marks that are control tokens of a vocabulary, with their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlMarks(Arc<[(u32, String)]>);

/// An incremental decoder of one sequence that spells marks.
#[derive(Debug, Clone)]
pub struct MarkedDetokenizer {
    detokenizer: Detokenizer,
    marks: ControlMarks,
}

// === impl ControlMarks ===

impl ControlMarks {
    /// Those of `marks` that are control tokens of `vocabulary`.
    #[must_use]
    pub fn of(vocabulary: &Vocabulary, marks: &[&str]) -> Self {
        let tokens = (0_u32..).zip(vocabulary.tokens());
        let control = tokens.filter(|(_, (spelling, kind))| kind.is_control() && marks.contains(spelling));
        Self(control.map(|(id, (spelling, _))| (id, spelling.to_owned())).collect())
    }

    /// The spelling of the token `id`, if it is a mark.
    #[must_use]
    pub fn spelling(&self, id: u32) -> Option<&str> {
        self.0.iter().find(|(mark, _)| *mark == id).map(|(_, spelling)| spelling.as_str())
    }

    /// All marks, with their ids.
    #[must_use]
    pub fn list(&self) -> &[(u32, String)] {
        &self.0
    }

    /// The bytes of the token `id`, in which marks are spelled.
    pub(super) fn bytes<'t>(&'t self, tokenizer: &'t Tokenizer, id: u32) -> &'t [u8] {
        self.spelling(id).map_or_else(|| tokenizer.token_bytes(id), str::as_bytes)
    }
}

// === impl MarkedDetokenizer ===

impl MarkedDetokenizer {
    /// A decoder at the start of a sequence that spells `marks`.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer, marks: ControlMarks) -> Self {
        Self { detokenizer: Detokenizer::new(tokenizer), marks }
    }

    /// The text that token `id` completes.
    pub fn push(&mut self, id: u32) -> String {
        match self.marks.spelling(id) {
            Some(spelling) => self.detokenizer.interrupt() + spelling,
            None => self.detokenizer.push(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::VocabularyFields;

    #[test]
    fn marks_are_spelled_and_other_control_tokens_are_not() {
        let mut fields = VocabularyFields::bytes_and(&["[ARGS]", "<|im_end|>", "<tool>"]);
        // A token added by hand is text anyway.
        fields.token_types[258] = 4;
        let vocabulary = Vocabulary::new(fields).unwrap();
        let marks = ControlMarks::of(&vocabulary, &["[ARGS]", "<tool>"]);
        assert_eq!(marks.list(), [(256, "[ARGS]".to_owned())]);
        let mut detokenizer = MarkedDetokenizer::new(&Tokenizer::new(&vocabulary).unwrap(), marks);
        let text: String = [97, 256, 257, 258, 0xC3, 256].map(|id| detokenizer.push(id)).concat();
        assert_eq!(text, "a[ARGS]<tool>\u{FFFD}[ARGS]");
    }
}
