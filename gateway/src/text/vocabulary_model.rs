//! The kinds of vocabulary, by the names that model files use (`tokenizer.ggml.model`).
//!
//! The special ids of a kind are those that llama.cpp assumes if a file does not name them.

use super::TextError;

/// The way in which text becomes tokens of a vocabulary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VocabularyModel {
    /// `gpt2` and `gemma4`: byte-pair encoding by a list of merges, within words.
    #[default]
    BytePair,
    /// `llama`: SentencePiece's byte-pair encoding by scores, over a whole text.
    SentencePiece,
    /// `bert`: WordPiece, the longest token that begins the rest of a word.
    WordPiece,
    /// `t5`: SentencePiece's unigram model, the division of a text with the best sum of scores.
    Unigram,
}

/// The special tokens that a kind of vocabulary has if a file does not name them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) separator: Option<u32>,
}

/// The names in model files, each with its kind and a description for errors.
const NAMES: &[(&str, VocabularyModel, &str)] = &[
    ("gpt2", VocabularyModel::BytePair, "byte-level BPE"),
    ("gemma4", VocabularyModel::BytePair, "BPE with spaces as ▁"),
    ("llama", VocabularyModel::SentencePiece, "SentencePiece"),
    ("bert", VocabularyModel::WordPiece, "WordPiece"),
    ("t5", VocabularyModel::Unigram, "Unigram"),
];

// === impl VocabularyModel ===

impl VocabularyModel {
    /// The kind that model files call `name`.
    pub(super) fn named(name: &str) -> Result<Self, TextError> {
        let found = NAMES.iter().find(|(known, ..)| *known == name).map(|(_, model, _)| *model);
        found.ok_or_else(|| {
            let known: Vec<String> = NAMES.iter().map(|(name, _, about)| format!("{name} ({about})")).collect();
            TextError::UnknownModel { found: name.to_owned(), known: known.join(", ") }
        })
    }

    /// The special tokens of a file that names none.
    pub(super) fn special_ids(self) -> SpecialIds {
        match self {
            Self::BytePair => SpecialIds::default(),
            Self::SentencePiece => SpecialIds { bos: Some(1), eos: Some(2), unknown: Some(0), ..SpecialIds::default() },
            Self::WordPiece => {
                SpecialIds { bos: Some(101), unknown: Some(100), separator: Some(102), ..SpecialIds::default() }
            }
            Self::Unigram => SpecialIds { eos: Some(1), unknown: Some(2), ..SpecialIds::default() },
        }
    }

    /// True if a vocabulary of this kind gives each token a score.
    pub(super) fn has_scores(self) -> bool {
        matches!(self, Self::SentencePiece | Self::Unigram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_is_refused_with_the_known_ones() {
        let message = VocabularyModel::named("rwkv").unwrap_err().to_string();
        assert!(
            message.starts_with("unknown tokenizer model \"rwkv\": known are gpt2 (byte-level BPE), "),
            "{message}"
        );
        assert!(NAMES.iter().all(|(name, ..)| message.contains(name)));
    }
}
