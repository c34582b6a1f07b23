//! WordPiece: each word to the longest tokens that begin its rest.
//!
//! Model files spell a token that begins a word with ▁ in front and one that continues it plainly, where the model's
//! own vocabulary has `word` and `##word`. The `tokenizers` crate's normaliser prepares the text, but its model expects
//! the latter spelling and refuses words above a length, which llama.cpp does not.

use std::collections::HashMap;

use fancy_regex::Regex;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{NormalizedString, Normalizer};

use super::TextError;
use super::spelling::SPACE;
use super::token_kind::TokenKind;
use super::vocabulary::Vocabulary;

/// The words of a text: runs without white space, in which each punctuation mark is a word of its own.
const WORDS: &str = r"[\p{P}!-/:-@\[-`{-~]|[^\s\p{P}!-/:-@\[-`{-~]+";

/// The tokens of a WordPiece vocabulary.
#[derive(Debug)]
pub(super) struct WordPiece {
    tokens: HashMap<Box<str>, u32>,
    /// The longest token, in bytes of its spelling.
    longest: usize,
    unknown: u32,
    normalizer: BertNormalizer,
    words: Regex,
}

// === impl WordPiece ===

impl WordPiece {
    /// The tokens of `vocabulary`.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] when there is no token for unknown words.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let text = |kind| matches!(kind, TokenKind::Normal | TokenKind::UserDefined);
        let tokens: HashMap<Box<str>, u32> = (0_u32..)
            .zip(vocabulary.tokens())
            .filter(|(_, (_, kind))| text(*kind))
            .map(|(id, (token, _))| (Box::from(token), id))
            .collect();
        let unknown = vocabulary.unknown();
        let fields = vocabulary.normalizer();
        Ok(Self {
            longest: tokens.keys().map(|token| token.len()).max().unwrap_or(0),
            tokens,
            unknown: unknown.ok_or_else(|| TextError::Vocabulary("expected a token for unknown words".to_owned()))?,
            normalizer: BertNormalizer::new(true, true, fields.strip_accents, fields.lowercase.unwrap_or(true)),
            words: Regex::new(WORDS).map_err(|cause| TextError::Split(Box::new(cause)))?,
        })
    }

    /// Appends the tokens of `text` to `ids`. A word without tokens becomes the one for unknown words.
    ///
    /// # Errors
    /// [`TextError::Split`] when the text cannot be split into words.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TextError> {
        let mut normalized = NormalizedString::from(text);
        let failed = |error: tokenizers::Error| TextError::Vocabulary(error.to_string());
        self.normalizer.normalize(&mut normalized).map_err(failed)?;
        for word in self.words.find_iter(normalized.get()) {
            let word = word.map_err(|cause| TextError::Split(Box::new(cause)))?;
            let before = ids.len();
            if self.encode_word(&[SPACE, word.as_str()].concat(), ids).is_none() {
                ids.truncate(before);
                ids.push(self.unknown);
            }
        }
        Ok(())
    }

    /// Appends the tokens of one word. `None` if a part of it has none.
    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) -> Option<()> {
        let mut rest = word;
        while !rest.is_empty() {
            let ends = (1..=rest.len().min(self.longest)).rev().filter(|&end| rest.is_char_boundary(end));
            let (end, id) = ends.into_iter().find_map(|end| Some((end, *self.tokens.get(&rest[..end])?)))?;
            ids.push(id);
            rest = &rest[end..];
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::vocabulary_fields::VocabularyFields;
    use crate::text::vocabulary_model::VocabularyModel;

    fn spelled(text: &str, set: impl Fn(&mut VocabularyFields)) -> Vec<String> {
        let tokens = ["[UNK]", "▁play", "ing", "▁cafe", "▁,", "▁中", "▁文", "▁Ｘ", "▁Play", "▁café"];
        let mut fields = VocabularyFields { model: VocabularyModel::WordPiece, ..VocabularyFields::default() };
        fields.tokens = tokens.map(str::to_owned).to_vec();
        fields.token_types = [&[3][..], &[1; 9]].concat();
        fields.unknown = Some(0);
        set(&mut fields);
        let vocabulary = Vocabulary::new(fields).unwrap();
        let mut ids = Vec::new();
        WordPiece::new(&vocabulary).unwrap().encode(text, &mut ids).unwrap();
        ids.iter().map(|&id| vocabulary.spelling(Some(id)).to_owned()).collect()
    }

    #[test]
    fn a_word_is_divided_into_the_longest_tokens_or_is_unknown() {
        assert_eq!(spelled("Playing, ing playin", |_| {}), ["▁play", "ing", "▁,", "[UNK]", "[UNK]"]);
    }

    #[test]
    fn accents_and_capitals_stay_if_the_file_says_so() {
        assert_eq!(spelled("Café Play", |_| {}), ["▁cafe", "▁play"]);
        assert_eq!(spelled("café Play", |fields| fields.normalizer.lowercase = Some(false)), ["▁café", "▁Play"]);
    }

    #[test]
    fn chinese_characters_are_words_and_control_tokens_are_not_spelled() {
        assert_eq!(spelled("中文[UNK]", |_| {}), ["▁中", "▁文", "[UNK]", "[UNK]", "[UNK]"]);
    }

    #[test]
    fn a_vocabulary_without_a_token_for_unknown_words_is_refused() {
        let fields = VocabularyFields { model: VocabularyModel::WordPiece, ..VocabularyFields::bytes_and(&[]) };
        let error = WordPiece::new(&Vocabulary::new(fields).unwrap()).unwrap_err().to_string();
        assert!(error.contains("expected a token for unknown words"), "{error}");
    }
}
