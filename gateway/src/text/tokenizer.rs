//! Byte-level BPE: text to token ids.
//!
//! Whole tokens are cut out first ([`super::partition`]), the rest is split into words ([`super::pre_tokenizer`]), and
//! each word is merged by the `tokenizers` crate's BPE model. The steps are joined here and not by that crate, because
//! its splitter swallows the errors of its pattern engine, and its added tokens do not distinguish a template's text
//! from a client's.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

use super::TextError;
use super::alphabet;
use super::partition::{Fragment, Partition};
use super::pieces::Pieces;
use super::pre_tokenizer::PreTokenizer;
use super::rendered::Rendered;
use super::spellings::Spellings;
use super::vocabulary::{Vocabulary, ids_by_spelling};

/// Longest text tokenized at once, in bytes: a million tokens of English, the longest context in use. It also bounds
/// the work of one request: a megabyte takes about half a second, and a megabyte of spaces about two seconds.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// The treatment of control tokens that are spelled in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// They become control tokens: for text that a template or an operator wrote.
    Parse,
    /// They stay text: for everything that a client wrote.
    Plain,
}

/// Turns text into token ids, in the form that the model was trained on.
#[derive(Debug)]
pub struct Tokenizer {
    partition: Partition,
    pre_tokenizer: PreTokenizer,
    model: BPE,
    pieces: Arc<Pieces>,
    spellings: Spellings,
    stops: Vec<u32>,
    bos: Option<u32>,
    add_bos: bool,
    appended_eos: Option<u32>,
}

// === impl Tokenizer ===

impl Tokenizer {
    /// Builds the tokenizer of a vocabulary.
    ///
    /// # Errors
    /// [`TextError`] when the pre-tokenizer is unknown or the merges make tokens that are not in the vocabulary.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let pre_tokenizer = PreTokenizer::named(vocabulary.pre())?;
        let add_bos = vocabulary.add_bos().unwrap_or(pre_tokenizer.add_bos);
        if add_bos && vocabulary.bos().is_none() {
            return Err(TextError::Vocabulary("expected a bos token, because texts begin with one".to_owned()));
        }
        let pieces = Pieces::new(vocabulary);
        Ok(Self {
            partition: Partition::new(vocabulary),
            model: model(vocabulary, pre_tokenizer.whole_words)?,
            pre_tokenizer,
            spellings: Spellings::new(vocabulary, &pieces),
            pieces: Arc::new(pieces),
            stops: vocabulary.stops().to_vec(),
            bos: vocabulary.bos(),
            add_bos,
            appended_eos: vocabulary.appended_eos(),
        })
    }

    /// The token ids of `text`. No bos is added (see [`Self::add_bos`]).
    ///
    /// # Errors
    /// [`TextError`] when the text is too long or holds a character the vocabulary cannot spell.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>, TextError> {
        let all = 0..text.len();
        match special {
            Special::Parse => self.encode_parts(text, &[]),
            Special::Plain => self.encode_parts(text, std::slice::from_ref(&all)),
        }
    }

    /// The token ids of a rendered prompt. Control tokens that the template wrote are control tokens, those spelled in
    /// messages are text. Adds bos at the start if [`Self::add_bos`] is true and the template did not write it itself.
    ///
    /// # Errors
    /// As for [`Self::encode`].
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>, TextError> {
        let mut ids = self.encode_parts(rendered.text(), rendered.plain())?;
        if let Some(bos) = self.bos.filter(|bos| self.add_bos && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The token that begins a text.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// True if a text begins with [`Self::bos`]. The caller of [`Self::encode`] adds it to a plain prompt.
    #[must_use]
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    /// The token that a text to be embedded ends with, if the model wants one.
    #[must_use]
    pub fn appended_eos(&self) -> Option<u32> {
        self.appended_eos
    }

    /// The tokens that end an answer, ascending.
    #[must_use]
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stops
    }

    /// Number of tokens. Ids are below it.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The bytes that token `id` stands for. They are empty for control tokens and ids outside the vocabulary.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.get(id)
    }

    /// Token `id` as the vocabulary spells it, such as `Ġthe` or `<|im_end|>`. Empty for ids outside the vocabulary.
    #[must_use]
    pub fn token_spelling(&self, id: u32) -> String {
        self.spellings.get(id, self.token_bytes(id))
    }

    /// The bytes that token `id` stands for. For a control token, those of its spelling.
    #[must_use]
    pub fn token_piece(&self, id: u32) -> Vec<u8> {
        match self.token_bytes(id) {
            [] => self.token_spelling(id).into_bytes(),
            bytes => bytes.to_vec(),
        }
    }

    /// The text of `ids`. Bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn pieces(&self) -> Arc<Pieces> {
        Arc::clone(&self.pieces)
    }

    fn encode_parts(&self, text: &str, plain: &[Range<usize>]) -> Result<Vec<u32>, TextError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TextError::TooLong { expected: TEXT_BYTES_MAX, found: text.len() });
        }
        // Most text has about four bytes a token.
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        for fragment in self.partition.cut(text, plain) {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(text) => {
                    for word in self.pre_tokenizer.words(text)? {
                        self.encode_word(word, &mut ids)?;
                    }
                }
            }
        }
        Ok(ids)
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) -> Result<(), TextError> {
        let tokens =
            self.model.tokenize(&alphabet::spell(word)).map_err(|error| TextError::Vocabulary(error.to_string()))?;
        // The model leaves out characters that it has no token for. No part of a prompt may get lost silently.
        let spelled: usize = tokens.iter().map(|token| token.value.chars().count()).sum();
        if spelled != word.len() {
            return Err(TextError::Unspellable { found: word.chars().take(40).collect() });
        }
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }
}

/// The BPE model of a vocabulary. Control tokens are not part of it, so merging can never make one.
fn model(vocabulary: &Vocabulary, whole_words: bool) -> Result<BPE, TextError> {
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
    let model = BPE::builder().vocab_and_merges(tokens, merges).ignore_merges(whole_words).build();
    model.map_err(|error| TextError::Vocabulary(error.to_string()))
}
