//! The model's tokens as llguidance takes them: a trie of their bytes, the tokens that end an answer, and the model's
//! own way of dividing a text into tokens.

use std::sync::Arc;

use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::GrammarError;
use super::limits::{FORCED_BYTES_MAX, TOKEN_BYTES_MAX, UNSURE_TOKENS, VOCABULARY_BYTES_MAX};
use super::token_mask::TokenMask;
use crate::text::{Special, Tokenizer};

/// The tokens of one model. It is llguidance's [`TokenizerEnv`].
pub(super) struct TokenTrie {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
    /// The tokens that a grammar can choose: those with text, and those that end an answer.
    choosable: TokenMask,
    /// True if every printable byte of ASCII and the line break has a token, as in every vocabulary that is of use.
    /// Text with another byte that has none cannot be generated, whether it is forced or not.
    spells_ascii: bool,
}

// === impl TokenTrie ===

impl TokenTrie {
    /// Builds the trie of a tokenizer's vocabulary.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] when it has no token that ends an answer, or more text than the trie can hold.
    pub(super) fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, GrammarError> {
        let vocabulary = |reason: String| GrammarError::Vocabulary { reason };
        let count = u32::try_from(tokenizer.vocab_size()).map_err(|_| vocabulary("too many tokens".to_owned()))?;
        let stops: Vec<u32> = tokenizer.stop_tokens().iter().copied().filter(|&stop| stop < count).collect();
        let Some(&first_stop) = stops.first() else {
            return Err(vocabulary("expected a token that ends an answer, found none".to_owned()));
        };
        let words: Vec<Vec<u8>> = (0..count).map(|id| word(&tokenizer, &stops, id).to_vec()).collect();
        let bytes: usize = words.iter().map(Vec::len).sum();
        if bytes > VOCABULARY_BYTES_MAX {
            let reason = format!("expected at most {VOCABULARY_BYTES_MAX} bytes of tokens, found {bytes}");
            return Err(vocabulary(reason));
        }
        let mut choosable = TokenMask::new(words.len());
        let with_text = (0..count).zip(&words).filter(|(_, word)| !word.is_empty()).map(|(id, _)| id);
        with_text.chain(stops.iter().copied()).for_each(|id| choosable.insert(id));
        let trie = TokTrie::from(&TokRxInfo::new(count, first_stop), &words).with_eos_tokens(&stops);
        let spells_ascii = (0x20..0x7F).chain([b'\n']).all(|byte| trie.token_id_at_bytes(&[byte]).is_some());
        Ok(Self { trie, tokenizer, choosable, spells_ascii })
    }

    /// The tokens that a grammar can choose.
    pub(super) fn choosable(&self) -> &TokenMask {
        &self.choosable
    }

    /// The tokens that end an answer, ascending. There is at least one.
    pub(super) fn stops(&self) -> &[u32] {
        self.trie.eos_tokens()
    }

    /// Number of tokens. Ids are below it.
    pub(super) fn vocab_size(&self) -> usize {
        self.trie.vocab_size()
    }
}

impl TokenizerEnv for TokenTrie {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The tokens that the model's tokenizer makes of `bytes`, or the first of them if there are more than
    /// [`FORCED_BYTES_MAX`]. Bytes that are not UTF-8 (a part of a character), and text that it would spell with a
    /// token that the trie leaves out, become the longest tokens that fit.
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let start = bytes.get(..FORCED_BYTES_MAX).unwrap_or(bytes);
        let mut tokens = self.trie.tokenize_with_greedy_fallback(start, |text| {
            let ids = self.tokenizer.encode_continuation(text, Special::Plain).unwrap_or_default();
            let spelled: usize = ids.iter().map(|&id| self.trie.token(id).len()).sum();
            if spelled == text.len() { ids } else { self.trie.greedy_tokenize(text.as_bytes()) }
        });
        if start.len() < bytes.len() {
            tokens.truncate(tokens.len().saturating_sub(UNSURE_TOKENS));
        }
        tokens
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.spells_ascii
    }
}

/// The text of a token that a grammar can choose as text, or nothing. A token that ends an answer is never text. No
/// UTF-8 text has the byte 0xFF, with which llguidance marks special tokens.
fn word<'t>(tokenizer: &'t Tokenizer, stops: &[u32], id: u32) -> &'t [u8] {
    let bytes = tokenizer.token_bytes(id);
    let marker = bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER);
    if marker || bytes.len() > TOKEN_BYTES_MAX || stops.contains(&id) { &[] } else { bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::fixture;
    use crate::text::{Vocabulary, VocabularyFields};

    fn trie(fields: VocabularyFields) -> Result<TokenTrie, GrammarError> {
        TokenTrie::new(Arc::new(Tokenizer::new(&Vocabulary::new(fields).unwrap()).unwrap()))
    }

    #[test]
    fn control_tokens_and_the_marker_byte_cannot_be_chosen_and_stops_can() {
        let trie = trie(VocabularyFields::bytes_and(&["<|im_start|>", "<|im_end|>"])).unwrap();
        assert_eq!(trie.stops(), [257]);
        assert!((0..255).all(|byte| trie.choosable().contains(byte)));
        assert!(!trie.choosable().contains(255) && !trie.choosable().contains(256));
        assert!(trie.choosable().contains(257));
        assert!(trie.tok_trie().token(257).is_empty());
    }

    #[test]
    fn a_text_token_that_ends_answers_is_no_text() {
        let mut fields = VocabularyFields::bytes_and(&[]);
        fields.ends = vec![u32::from(b'\n')];
        let trie = trie(fields).unwrap();
        assert_eq!(trie.stops(), [10]);
        assert!(trie.tok_trie().token(10).is_empty());
        assert!(!trie.tokenize_is_canonical(), "a line break has no token left");
    }

    #[test]
    fn a_vocabulary_without_a_stop_token_is_refused() {
        let error = trie(VocabularyFields::bytes_and(&["<|im_start|>"])).err().unwrap().to_string();
        assert!(error.contains("expected a token that ends an answer, found none"), "{error}");
    }

    #[test]
    fn tokens_that_the_trie_cannot_hold_are_left_out_or_refused() {
        let mut fields = VocabularyFields::bytes_and(&["<|im_end|>"]);
        fields.tokens.push("a".repeat(TOKEN_BYTES_MAX));
        fields.tokens.push("a".repeat(TOKEN_BYTES_MAX + 1));
        fields.token_types.extend([1, 1]);
        let built = trie(fields.clone()).unwrap();
        assert!(built.choosable().contains(257) && !built.choosable().contains(258));
        for start in 0..=VOCABULARY_BYTES_MAX / 1000 {
            fields.tokens.push(format!("{start:a>1000}"));
            fields.token_types.push(1);
        }
        let error = trie(fields).err().unwrap().to_string();
        assert!(error.contains("expected at most 4194302 bytes of tokens"), "{error}");
    }

    #[test]
    fn a_text_is_divided_as_the_model_divides_it() {
        let trie = TokenTrie::new(fixture::tokenizer()).unwrap();
        let tokenizer = fixture::tokenizer();
        for text in ["{\"name\": \"", "true", "names", "é\u{1F600} a", ""] {
            let ids = trie.tokenize_bytes(text.as_bytes());
            assert_eq!(ids, tokenizer.encode(text, Special::Plain).unwrap(), "{text:?}");
        }
        let broken = trie.tokenize_bytes(b"true\xC3");
        assert_eq!(tokenizer.token_bytes(broken[0]), b"true");
        assert_eq!(broken[1], 0xC3);
        let long = "true and ".repeat(FORCED_BYTES_MAX);
        let ids = trie.tokenize_bytes(long.as_bytes());
        assert!(ids.len() > 1000);
        let whole = tokenizer.encode(&long, Special::Plain).unwrap();
        assert_eq!(ids, whole[..ids.len()]);
    }
}
