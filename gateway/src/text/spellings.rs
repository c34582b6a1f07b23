//! The spellings of tokens in the vocabulary.
//!
//! Most tokens are spelled in the byte alphabet, so that their spelling follows from their bytes. Only the others are
//! kept: control tokens, and tokens added by hand.

use std::collections::HashMap;

use super::alphabet;
use super::pieces::Pieces;
use super::vocabulary::Vocabulary;

/// The spellings that do not follow from the tokens' bytes.
#[derive(Debug)]
pub(super) struct Spellings {
    others: HashMap<u32, Box<str>>,
}

// === impl Spellings ===

impl Spellings {
    /// Collects the spellings of `vocabulary`, whose tokens have the bytes `pieces`.
    pub(super) fn new(vocabulary: &Vocabulary, pieces: &Pieces) -> Self {
        let tokens = (0_u32..).zip(vocabulary.tokens());
        let others = tokens.filter(|(id, (token, _))| spelled(pieces.get(*id)) != *token);
        Self { others: others.map(|(id, (token, _))| (id, Box::from(token))).collect() }
    }

    /// The spelling of token `id`, whose bytes are `piece`. Empty for an id outside the vocabulary.
    pub(super) fn get(&self, id: u32, piece: &[u8]) -> String {
        self.others.get(&id).map_or_else(|| spelled(piece), std::string::ToString::to_string)
    }
}

fn spelled(piece: &[u8]) -> String {
    piece.iter().copied().map(alphabet::spell_byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::vocabulary::VocabularyFields;

    #[test]
    fn every_token_has_the_spelling_of_the_vocabulary_and_only_the_special_ones_are_kept() {
        let mut fields = VocabularyFields::bytes_and(&["<|end|>", "tag é", ""]);
        fields.token_types[257] = 4;
        let vocabulary = Vocabulary::new(fields.clone()).unwrap();
        let pieces = Pieces::new(&vocabulary);
        let spellings = Spellings::new(&vocabulary, &pieces);
        for (id, token) in (0_u32..).zip(&fields.tokens) {
            assert_eq!(spellings.get(id, pieces.get(id)), *token);
        }
        assert_eq!(spellings.others.len(), 2);
        assert_eq!(spellings.get(999, pieces.get(999)), "");
    }
}
