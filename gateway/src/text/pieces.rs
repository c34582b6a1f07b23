//! The bytes each token stands for, in one block.

use super::alphabet;
use super::token_kind::TokenKind;
use super::vocabulary::Vocabulary;

/// The raw bytes of every token; empty for tokens that are not text.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Where each token ends; it begins where the one before it ends.
    ends: Vec<usize>,
}

impl Pieces {
    /// Spells out every token of `vocabulary`.
    pub(super) fn new(vocabulary: &Vocabulary) -> Self {
        let mut pieces = Self { bytes: Vec::new(), ends: Vec::with_capacity(vocabulary.len()) };
        for (token, kind) in vocabulary.tokens() {
            match kind {
                TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => {}
                // Added by hand after training: stored as plain text.
                TokenKind::UserDefined => pieces.bytes.extend_from_slice(token.as_bytes()),
                TokenKind::Normal | TokenKind::Byte => match alphabet::bytes(token) {
                    Some(bytes) => pieces.bytes.extend_from_slice(&bytes),
                    None => pieces.bytes.extend_from_slice(token.as_bytes()),
                },
            }
            pieces.ends.push(pieces.bytes.len());
        }
        pieces
    }

    /// The bytes of token `id`; empty for control tokens and for ids outside the vocabulary.
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let Ok(index) = usize::try_from(id) else { return &[] };
        let Some(&end) = self.ends.get(index) else { return &[] };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..end]
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}
