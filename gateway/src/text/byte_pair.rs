//! Byte-pair encoding by a list of merges: the words of a text to tokens.
//!
//! The words come from the pre-tokenizer, and each is merged by the `tokenizers` crate's BPE model. The steps are
//! joined here and not by that crate, because its splitter swallows the errors of its pattern engine, and its added
//! tokens do not distinguish a template's text from a client's.

use std::collections::HashSet;

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

use super::TextError;
use super::alphabet;
use super::pre_tokenizer::PreTokenizer;
use super::spelling::{Spelling, mark_spaces, named_byte};
use super::vocabulary::{Vocabulary, ids_by_spelling};

/// A vocabulary with merges.
#[derive(Debug)]
pub(super) struct BytePair {
    pre_tokenizer: PreTokenizer,
    model: BPE,
}

// === impl BytePair ===

impl BytePair {
    /// The tokens and merges of `vocabulary`.
    ///
    /// # Errors
    /// [`TextError`] when the pre-tokenizer is unknown or the merges make tokens that are not in the vocabulary.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let pre_tokenizer = PreTokenizer::named(vocabulary.pre())?;
        Ok(Self { model: model(vocabulary, &pre_tokenizer)?, pre_tokenizer })
    }

    /// The rule that splits text into words.
    pub(super) fn pre_tokenizer(&self) -> &PreTokenizer {
        &self.pre_tokenizer
    }

    /// Appends the tokens of `text` to `ids`.
    ///
    /// # Errors
    /// [`TextError::Unspellable`] when a character has no token, [`TextError::Split`] when the text cannot be split.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TextError> {
        match self.pre_tokenizer.spelling {
            Spelling::ByteAlphabet => {
                for word in self.pre_tokenizer.words(text)? {
                    self.encode_word(&alphabet::spell(word), word, ids)?;
                }
            }
            Spelling::MarkedSpaces => {
                for word in self.pre_tokenizer.words(&mark_spaces(text))? {
                    self.encode_word(word, word, ids)?;
                }
            }
        }
        Ok(())
    }

    /// Appends the tokens of a word, which the vocabulary spells `spelled`.
    fn encode_word(&self, spelled: &str, word: &str, ids: &mut Vec<u32>) -> Result<(), TextError> {
        if self.pre_tokenizer.whole_line_breaks
            && word.bytes().all(|byte| byte == b'\n')
            && let Some(id) = self.model.token_to_id(spelled)
        {
            ids.push(id);
            return Ok(());
        }
        let tokens = self.model.tokenize(spelled).map_err(|error| TextError::Vocabulary(error.to_string()))?;
        // The model leaves out characters that it has no token for. No part of a prompt may get lost silently.
        let is_byte =
            |token: &str| self.pre_tokenizer.spelling == Spelling::MarkedSpaces && named_byte(token).is_some();
        let bytes = |token: &str| if is_byte(token) { 1 } else { token.len() };
        if tokens.iter().map(|token| bytes(&token.value)).sum::<usize>() != spelled.len() {
            return Err(TextError::Unspellable { found: word.chars().take(40).collect() });
        }
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }
}

/// The BPE model of a vocabulary. Control tokens are not part of it, so merging can never make one.
fn model(vocabulary: &Vocabulary, pre_tokenizer: &PreTokenizer) -> Result<BPE, TextError> {
    let ids = ids_by_spelling(vocabulary);
    let control: HashSet<&str> = vocabulary.control().collect();
    let tokens: Vocab = ids
        .iter()
        .filter(|(spelling, _)| !control.contains(**spelling))
        .map(|(spelling, id)| ((*spelling).to_owned(), *id))
        .collect();
    let mut merges = Vec::with_capacity(vocabulary.merges().len());
    for (left, right) in vocabulary.merges() {
        let joined = [left.as_str(), right].concat();
        if control.contains(joined.as_str()) {
            continue;
        }
        if let Some(missing) = [left, right, &joined].into_iter().find(|part| !tokens.contains_key(part.as_str())) {
            let message = format!("expected the tokens of merge \"{left} {right}\", found no token {missing:?}");
            return Err(TextError::Vocabulary(message));
        }
        merges.push((left.clone(), right.clone()));
    }
    let model = BPE::builder()
        .vocab_and_merges(tokens, merges)
        .ignore_merges(pre_tokenizer.whole_words)
        .byte_fallback(pre_tokenizer.spelling == Spelling::MarkedSpaces)
        .build();
    model.map_err(|error| TextError::Vocabulary(error.to_string()))
}
