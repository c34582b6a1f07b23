//! The spellings of tokens in the vocabulary.
//!
//! The spelling of most tokens follows from their bytes. Only the others are kept: control tokens, tokens added by
//! hand, and those of single bytes in a vocabulary that spells text as it is.

use std::collections::HashMap;

use super::pieces::Pieces;
use super::spelling::Spelling;
use super::vocabulary::Vocabulary;

/// The spellings that do not follow from the tokens' bytes.
#[derive(Debug)]
pub(super) struct Spellings {
    spelling: Spelling,
    others: HashMap<u32, Box<str>>,
}

// === impl Spellings ===

impl Spellings {
    /// Collects the spellings of `vocabulary`, whose tokens have the bytes `pieces` by the rule `spelling`.
    pub(super) fn new(vocabulary: &Vocabulary, pieces: &Pieces, spelling: Spelling) -> Self {
        let tokens = (0_u32..).zip(vocabulary.tokens());
        let others = tokens.filter(|(id, (token, _))| spelling.spell(pieces.get(*id)) != *token);
        Self { spelling, others: others.map(|(id, (token, _))| (id, Box::from(token))).collect() }
    }

    /// The spelling of token `id`, whose bytes are `piece`. Empty for an id outside the vocabulary.
    pub(super) fn get(&self, id: u32, piece: &[u8]) -> String {
        self.others.get(&id).map_or_else(|| self.spelling.spell(piece), std::string::ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::vocabulary_fields::VocabularyFields;

    fn spellings(fields: &VocabularyFields, spelling: Spelling) -> (Pieces, Spellings) {
        let vocabulary = Vocabulary::new(fields.clone()).unwrap();
        let pieces = Pieces::new(&vocabulary, spelling);
        let spellings = Spellings::new(&vocabulary, &pieces, spelling);
        for (id, token) in (0_u32..).zip(&fields.tokens) {
            assert_eq!(spellings.get(id, pieces.get(id)), *token);
        }
        (pieces, spellings)
    }

    #[test]
    fn every_token_has_the_spelling_of_the_vocabulary_and_only_the_special_ones_are_kept() {
        let mut fields = VocabularyFields::bytes_and(&["<|end|>", "tag é", ""]);
        fields.token_types[257] = 4;
        let (pieces, spellings) = spellings(&fields, Spelling::ByteAlphabet);
        assert_eq!(spellings.others.len(), 2);
        assert_eq!(spellings.get(999, pieces.get(999)), "");
    }

    #[test]
    fn with_marked_spaces_the_tokens_of_single_bytes_are_kept_too() {
        let fields = VocabularyFields::pieces_and(&[("▁the", -1.0), ("é▁", -2.0)]);
        let (pieces, spellings) = spellings(&fields, Spelling::MarkedSpaces);
        // <unk>, <s>, </s> and the bytes.
        assert_eq!(spellings.others.len(), 3 + 256);
        assert_eq!(pieces.get(3 + 256), b" the");
        assert_eq!(pieces.get(3 + 0xE2), [0xE2]);
    }
}
