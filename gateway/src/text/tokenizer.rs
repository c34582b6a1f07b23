//! Text to token ids, and the bytes of ids.
//!
//! Whole tokens are cut out first ([`super::partition`]). The text between them is divided as the vocabulary's kind
//! asks ([`super::encoder`]).

use std::ops::Range;
use std::sync::Arc;

use super::TextError;
use super::encoder::Encoder;
use super::partition::{Fragment, Partition};
use super::pieces::Pieces;
use super::rendered::Rendered;
use super::spellings::Spellings;
use super::vocabulary::Vocabulary;

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
    encoder: Encoder,
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
    /// [`TextError`] when the vocabulary lacks something that its kind needs, or its parts do not fit together.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let encoder = Encoder::new(vocabulary)?;
        let add_bos = encoder.adds_bos(vocabulary.add_bos());
        if add_bos && vocabulary.bos().is_none() {
            return Err(TextError::Vocabulary("expected a bos token, because texts begin with one".to_owned()));
        }
        let spelling = encoder.spelling();
        let pieces = Pieces::new(vocabulary, spelling);
        Ok(Self {
            partition: Partition::new(vocabulary),
            encoder,
            spellings: Spellings::new(vocabulary, &pieces, spelling),
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
        self.encode_whole(text, special, true)
    }

    /// The token ids of `text` behind other text: no space comes in front of it.
    ///
    /// # Errors
    /// As for [`Self::encode`].
    pub fn encode_continuation(&self, text: &str, special: Special) -> Result<Vec<u32>, TextError> {
        self.encode_whole(text, special, false)
    }

    /// The token ids of a rendered prompt. Control tokens that the template wrote are control tokens, those spelled in
    /// messages are text. Adds bos at the start if [`Self::add_bos`] is true and the template did not write it itself.
    ///
    /// # Errors
    /// As for [`Self::encode`].
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>, TextError> {
        let mut ids = self.encode_parts(rendered.text(), rendered.plain(), true)?;
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

    /// The text of `ids`, which begin a text, without the space that [`Self::encode`] puts in front of it. Bytes that
    /// are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.token_bytes(id)).copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        text.strip_prefix(' ').filter(|_| self.encoder.adds_space()).unwrap_or(&text).to_owned()
    }

    pub(super) fn pieces(&self) -> Arc<Pieces> {
        Arc::clone(&self.pieces)
    }

    fn encode_whole(&self, text: &str, special: Special, begins: bool) -> Result<Vec<u32>, TextError> {
        let all = 0..text.len();
        match special {
            Special::Parse => self.encode_parts(text, &[], begins),
            Special::Plain => self.encode_parts(text, std::slice::from_ref(&all), begins),
        }
    }

    /// The token ids of `text`, in which nothing in the ranges `plain` is a control token. `begins` is false behind
    /// other text.
    fn encode_parts(&self, text: &str, plain: &[Range<usize>], mut begins: bool) -> Result<Vec<u32>, TextError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TextError::TooLong { expected: TEXT_BYTES_MAX, found: text.len() });
        }
        // Most text has about four bytes a token.
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        for fragment in self.partition.cut(text, plain) {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(text) => self.encoder.encode(text, begins, &mut ids)?,
            }
            begins = matches!(fragment, Fragment::Token(_));
        }
        Ok(ids)
    }
}
