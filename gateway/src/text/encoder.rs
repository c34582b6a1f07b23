//! The four ways of dividing a text into tokens, behind one face.

use super::TextError;
use super::byte_pair::BytePair;
use super::sentence_piece::SentencePiece;
use super::spelling::Spelling;
use super::unigram::Unigram;
use super::vocabulary::Vocabulary;
use super::vocabulary_model::VocabularyModel;
use super::word_piece::WordPiece;

/// Divides text without whole tokens into tokens.
#[derive(Debug)]
pub(super) enum Encoder {
    BytePair(Box<BytePair>),
    SentencePiece(Box<SentencePiece>),
    WordPiece(Box<WordPiece>),
    Unigram(Box<Unigram>),
}

// === impl Encoder ===

impl Encoder {
    /// The encoder of a vocabulary.
    ///
    /// # Errors
    /// [`TextError`] when the vocabulary lacks something that its kind needs.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        Ok(match vocabulary.model() {
            VocabularyModel::BytePair => Self::BytePair(Box::new(BytePair::new(vocabulary)?)),
            VocabularyModel::SentencePiece => Self::SentencePiece(Box::new(SentencePiece::new(vocabulary))),
            VocabularyModel::WordPiece => Self::WordPiece(Box::new(WordPiece::new(vocabulary)?)),
            VocabularyModel::Unigram => Self::Unigram(Box::new(Unigram::new(vocabulary)?)),
        })
    }

    /// Appends the tokens of `text` to `ids`. `begins` is true at the beginning of a text and after a token that was
    /// found as a whole.
    ///
    /// # Errors
    /// [`TextError::Unspellable`] when a character has no token, [`TextError::Split`] when the text cannot be split.
    pub(super) fn encode(&self, text: &str, begins: bool, ids: &mut Vec<u32>) -> Result<(), TextError> {
        match self {
            Self::BytePair(model) => model.encode(text, ids),
            Self::SentencePiece(model) => model.encode(text, begins, ids),
            Self::WordPiece(model) => model.encode(text, ids),
            Self::Unigram(model) => {
                model.encode(text, ids);
                Ok(())
            }
        }
    }

    /// The rule by which the vocabulary spells bytes.
    pub(super) fn spelling(&self) -> Spelling {
        match self {
            Self::BytePair(model) => model.pre_tokenizer().spelling,
            Self::SentencePiece(_) | Self::WordPiece(_) | Self::Unigram(_) => Spelling::MarkedSpaces,
        }
    }

    /// True if a text begins with bos. `named` is what the file says.
    pub(super) fn adds_bos(&self, named: Option<bool>) -> bool {
        match self {
            // Files of Gemma 4 say false, and the model is of no use without.
            Self::BytePair(model) if model.pre_tokenizer().always_bos => true,
            Self::BytePair(model) => named.unwrap_or(model.pre_tokenizer().add_bos),
            Self::SentencePiece(_) => named.unwrap_or(true),
            Self::WordPiece(_) => true,
            Self::Unigram(_) => named.unwrap_or(false),
        }
    }

    /// True if a text that begins gets a space in front, which its tokens then spell.
    pub(super) fn adds_space(&self) -> bool {
        matches!(self, Self::SentencePiece(model) if model.adds_space())
    }
}
