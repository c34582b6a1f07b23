//! The bytes that each token stands for, in one block.

use super::spelling::Spelling;
use super::vocabulary::Vocabulary;

/// The raw bytes of every token. Tokens that are not text have none.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Offsets in `bytes` at which the tokens end. A token begins at the end of the one before.
    ends: Vec<usize>,
}

impl Pieces {
    /// Collects the bytes of every token of `vocabulary`, whose tokens are spelled by the rule `spelling`.
    pub(super) fn new(vocabulary: &Vocabulary, spelling: Spelling) -> Self {
        let mut pieces = Self { bytes: Vec::new(), ends: Vec::with_capacity(vocabulary.len()) };
        for (token, kind) in vocabulary.tokens() {
            spelling.decode(token, kind, &mut pieces.bytes);
            pieces.ends.push(pieces.bytes.len());
        }
        pieces
    }

    /// The bytes of token `id`. They are empty for control tokens and for ids outside the vocabulary.
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let Ok(index) = usize::try_from(id) else { return &[] };
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..end]
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}
