//! The text metadata of a model file: tokens, merges, special ids, chat template.
//!
//! It is checked once, here, and the tokenizer built from it relies on that. This module does not know how text is
//! split.

use std::collections::HashMap;

use stages::gguf::Metadata;

use super::TextError;
use super::fim::{FimFields, FimTokens, fim};
use super::stops::stops;
use super::token_kind::{TokenKind, kinds};

/// Most tokens in a vocabulary: four times the largest in use (262,144), so that a bad file cannot ask for more memory.
const TOKENS_MAX: usize = 1 << 20;
/// Most merges in a vocabulary. About one for each token is usual.
const MERGES_MAX: usize = 2 << 20;

/// The unchecked fields that a [`Vocabulary`] is made of.
#[derive(Debug, Clone, Default)]
pub struct VocabularyFields {
    /// `tokenizer.ggml.tokens`: every token, spelled.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`: one for each token, or none at all.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`: pairs `left right`, highest priority first.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.pre`: name of the rule that splits text into words.
    pub pre: String,
    /// `tokenizer.ggml.bos_token_id`: the token that begins a text.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`, `eot_token_id`, `eom_token_id`: the tokens that end a text, a turn, a message.
    pub ends: Vec<u32>,
    /// `tokenizer.ggml.eos_token_id`: the end token that a chat template gets.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`: true if a text begins with bos. Absent in many files.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`: true if a text that is embedded ends with eos. Absent in most files.
    pub add_eos: Option<bool>,
    /// The tokens for filling in the middle.
    pub fim: FimFields,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

/// A checked vocabulary.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<TokenKind>,
    merges: Vec<(String, String)>,
    pre: String,
    bos: Option<u32>,
    eos: Option<u32>,
    stops: Vec<u32>,
    add_bos: Option<bool>,
    add_eos: bool,
    fim: Option<FimTokens>,
    chat_template: Option<String>,
}

// === impl VocabularyFields ===

impl VocabularyFields {
    /// Reads the fields from a model file's metadata.
    fn read(metadata: &Metadata) -> Result<Self, TextError> {
        let model = metadata.str("tokenizer.ggml.model")?;
        if model != "gpt2" {
            let known = "gpt2 (byte-level BPE)".to_owned();
            return Err(TextError::UnknownModel { found: model.to_owned(), known });
        }
        let strings = |key| Ok::<_, TextError>(metadata.str_array(key)?.iter().map(str::to_owned).collect());
        let eos = metadata.get_u32("tokenizer.ggml.eos_token_id")?;
        let mut ends = Vec::from_iter(eos);
        ends.extend(metadata.get_u32("tokenizer.ggml.eot_token_id")?);
        ends.extend(metadata.get_u32("tokenizer.ggml.eom_token_id")?);
        Ok(Self {
            tokens: strings("tokenizer.ggml.tokens")?,
            token_types: metadata.get_i32_array("tokenizer.ggml.token_type")?.unwrap_or_default(),
            merges: strings("tokenizer.ggml.merges")?,
            pre: metadata.str("tokenizer.ggml.pre")?.to_owned(),
            bos: metadata.get_u32("tokenizer.ggml.bos_token_id")?,
            ends,
            eos,
            add_bos: metadata.get_bool("tokenizer.ggml.add_bos_token")?,
            add_eos: metadata.get_bool("tokenizer.ggml.add_eos_token")?,
            fim: FimFields::read(metadata)?,
            chat_template: metadata.get_str("tokenizer.chat_template")?.map(str::to_owned),
        })
    }

    /// A small vocabulary for tests: the 256 bytes in order, then `control` tokens.
    #[cfg(test)]
    pub(crate) fn bytes_and(control: &[&str]) -> Self {
        let mut fields = Self { pre: "gpt-2".to_owned(), ..Self::default() };
        for byte in 0..=255_u8 {
            fields.tokens.push(super::alphabet::spell_byte(byte).to_string());
            fields.token_types.push(1);
        }
        for token in control {
            fields.tokens.push((*token).to_owned());
            fields.token_types.push(3);
        }
        fields
    }
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
        let named = fields.bos.iter().chain(&fields.eos).chain(&fields.ends).copied();
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
            tokens: fields.tokens,
            kinds,
            merges,
            pre: fields.pre,
            bos: fields.bos,
            eos: fields.eos,
            stops,
            add_bos: fields.add_bos,
            add_eos: fields.add_eos.unwrap_or(false),
            fim,
            chat_template: fields.chat_template,
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
        self.eos.filter(|_| self.add_eos)
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
