//! The text metadata of a model file: tokens, merges, special ids, chat template.
//!
//! It is checked once, here, and the tokenizer built from it relies on that. This module does not know how text is
//! split.

use std::collections::HashMap;

use stages::gguf::Metadata;

use super::TextError;
use super::fim::{FimTokens, fim};
use super::normalizer::NormalizerFields;
use super::stops::stops;
use super::strips::StripFields;
use super::token_kind::{TokenKind, kinds};
use super::vocabulary_fields::VocabularyFields;
use super::vocabulary_model::VocabularyModel;

/// Most tokens in a vocabulary: four times the largest in use (262,144), so that a bad file cannot ask for more memory.
const TOKENS_MAX: usize = 1 << 20;
/// Most merges in a vocabulary. About one for each token is usual.
const MERGES_MAX: usize = 2 << 20;

/// A checked vocabulary.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    model: VocabularyModel,
    tokens: Vec<String>,
    kinds: Vec<TokenKind>,
    scores: Vec<f32>,
    merges: Vec<(String, String)>,
    pre: String,
    normalizer: NormalizerFields,
    strips: StripFields,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    separator: Option<u32>,
    stops: Vec<u32>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
    fim: Option<FimTokens>,
    chat_template: Option<String>,
    named_templates: Vec<(String, String)>,
}

// === impl Vocabulary ===

impl Vocabulary {
    /// Reads and checks the vocabulary in a model file's metadata.
    ///
    /// # Errors
    /// [`TextError`] when a key is missing, the tokenizer is of an unknown kind, or the parts do not fit together.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, TextError> {
        Self::new(VocabularyFields::read(metadata)?)
    }

    /// Checks that the fields fit together.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] when they do not.
    pub fn new(fields: VocabularyFields) -> Result<Self, TextError> {
        let count = fields.tokens.len();
        let bad = |message: String| Err(TextError::Vocabulary(message));
        if count == 0 || count > TOKENS_MAX {
            return bad(format!("expected 1 to {TOKENS_MAX} tokens, found {count}"));
        }
        if !fields.token_types.is_empty() && fields.token_types.len() != count {
            return bad(format!("expected {count} token types, found {}", fields.token_types.len()));
        }
        if fields.merges.len() > MERGES_MAX {
            return bad(format!("expected at most {MERGES_MAX} merges, found {}", fields.merges.len()));
        }
        let scores = if fields.model.has_scores() { count } else { 0 };
        if fields.scores.len() != scores {
            return bad(format!("expected {scores} scores of tokens, found {}", fields.scores.len()));
        }
        if let Some(score) = fields.scores.iter().find(|score| !score.is_finite()) {
            return bad(format!("expected finite scores of tokens, found {score}"));
        }
        let named = [fields.bos, fields.eos, fields.unknown, fields.separator].into_iter().flatten();
        let named = named.chain(fields.ends.iter().copied()).chain(fields.strips.ids());
        for id in named.chain(fields.fim.ids()) {
            if id as usize >= count {
                return bad(format!("expected special ids below {count}, found {id}"));
            }
        }
        let mut kinds = kinds(&fields.token_types, count)?;
        let stops = stops(&fields.tokens, &mut kinds, &fields.ends);
        let fim = fim(&fields.tokens, &mut kinds, &fields.fim);
        let merges = fields.merges.iter().map(|merge| split_merge(merge)).collect::<Result<_, _>>()?;
        Ok(Self {
            model: fields.model,
            tokens: fields.tokens,
            kinds,
            scores: fields.scores,
            merges,
            pre: fields.pre,
            normalizer: fields.normalizer,
            strips: fields.strips,
            bos: fields.bos,
            eos: fields.eos,
            unknown: fields.unknown,
            separator: fields.separator,
            stops,
            add_bos: fields.add_bos,
            add_eos: fields.add_eos,
            fim,
            chat_template: fields.chat_template,
            named_templates: fields.named_templates,
        })
    }

    /// Number of tokens.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a vocabulary is never empty")]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Every token with its kind, by id.
    pub fn tokens(&self) -> impl Iterator<Item = (&str, TokenKind)> {
        self.tokens.iter().map(String::as_str).zip(self.kinds.iter().copied())
    }

    /// The kind of vocabulary.
    #[must_use]
    pub fn model(&self) -> VocabularyModel {
        self.model
    }

    /// Every token's score, by id. Empty if tokens of this kind have none.
    #[must_use]
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// The changes to a text before it is divided into tokens.
    #[must_use]
    pub fn normalizer(&self) -> &NormalizerFields {
        &self.normalizer
    }

    /// The special tokens that take the white space beside them.
    #[must_use]
    pub fn strips(&self) -> &StripFields {
        &self.strips
    }

    /// The token of text that has no token.
    #[must_use]
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The merges, highest priority first.
    #[must_use]
    pub fn merges(&self) -> &[(String, String)] {
        &self.merges
    }

    /// Name of the rule that splits text into words.
    #[must_use]
    pub fn pre(&self) -> &str {
        &self.pre
    }

    /// The token that begins a text.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// True if a text begins with [`Self::bos`]. `None` if the file does not specify it.
    #[must_use]
    pub fn add_bos(&self) -> Option<bool> {
        self.add_bos
    }

    /// The token that a text to be embedded ends with, if the file wants one. Prompts to be continued never have it.
    #[must_use]
    pub fn appended_eos(&self) -> Option<u32> {
        match self.model {
            VocabularyModel::WordPiece => self.separator,
            VocabularyModel::Unigram => self.eos.filter(|_| self.add_eos.unwrap_or(true)),
            VocabularyModel::BytePair | VocabularyModel::SentencePiece => {
                self.eos.filter(|_| self.add_eos.unwrap_or(false))
            }
        }
    }

    /// Every token that ends an answer, ascending.
    #[must_use]
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// The tokens for filling in the middle, if the model has them.
    #[must_use]
    pub fn fim(&self) -> Option<FimTokens> {
        self.fim
    }

    /// The chat template's source.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The sources of the templates beside the usual one, with their names.
    pub fn named_templates(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named_templates.iter().map(|(name, source)| (name.as_str(), source.as_str()))
    }

    /// A token as it is spelled in the vocabulary. It is empty for an id outside it.
    #[must_use]
    pub fn spelling(&self, id: Option<u32>) -> &str {
        id.and_then(|id| self.tokens.get(id as usize)).map_or("", String::as_str)
    }

    /// The spellings of all tokens that a client's text must not become.
    pub fn control(&self) -> impl Iterator<Item = &str> {
        self.tokens().filter(|(_, kind)| kind.is_control()).map(|(token, _)| token)
    }
}

fn split_merge(merge: &str) -> Result<(String, String), TextError> {
    // The first character may itself be a space in vocabularies not written in the byte alphabet.
    let second = merge.chars().next().map_or(0, char::len_utf8);
    let space = merge[second..].find(' ').map(|at| at + second);
    let bad = || TextError::Vocabulary(format!("expected merges of two parts, found {merge:?}"));
    let space = space.ok_or_else(bad)?;
    Ok((merge[..space].to_owned(), merge[space + 1..].to_owned()))
}

/// Ids by spelling. If several tokens have the same spelling, the last one counts.
pub(super) fn ids_by_spelling(vocabulary: &Vocabulary) -> HashMap<&str, u32> {
    (0_u32..).zip(vocabulary.tokens()).map(|(id, (token, _))| (token, id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: VocabularyFields) -> String {
        Vocabulary::new(fields).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_vocabulary_is_refused() {
        assert!(message(VocabularyFields::default()).contains("expected 1 to 1048576 tokens, found 0"));
    }

    #[test]
    fn types_that_do_not_match_the_tokens_are_refused() {
        let mut fields = VocabularyFields::bytes_and(&[]);
        fields.token_types.pop();
        assert!(message(fields).contains("expected 256 token types, found 255"));
        let mut fields = VocabularyFields::bytes_and(&[]);
        fields.token_types[3] = 9;
        assert!(message(fields).contains("expected token types from 0 to 6, found 9"));
    }

    #[test]
    fn scores_that_do_not_match_the_tokens_are_refused() {
        let mut fields = VocabularyFields::pieces_and(&[("a", -1.0)]);
        fields.scores[7] = f32::NAN;
        assert!(message(fields.clone()).contains("expected finite scores of tokens, found NaN"));
        fields.scores.pop();
        assert!(message(fields).contains("expected 260 scores of tokens, found 259"));
        let fields = VocabularyFields { scores: vec![0.0], ..VocabularyFields::bytes_and(&[]) };
        assert!(message(fields).contains("expected 0 scores of tokens, found 1"));
    }

    #[test]
    fn special_ids_outside_the_vocabulary_are_refused() {
        for set in [|f: &mut VocabularyFields| f.bos = Some(256), |f: &mut VocabularyFields| f.ends = vec![u32::MAX]] {
            let mut fields = VocabularyFields::bytes_and(&[]);
            set(&mut fields);
            assert!(message(fields).contains("expected special ids below 256"));
        }
    }

    #[test]
    fn a_merge_of_one_part_is_refused() {
        for merge in ["ab", "", " ", "é"] {
            let mut fields = VocabularyFields::bytes_and(&[]);
            fields.merges = vec![merge.to_owned()];
            assert!(message(fields).contains("expected merges of two parts"), "{merge:?}");
        }
    }
}
