//! The tokens for filling in the middle (FIM): a model that knows them gets the text before and after a gap, each
//! behind a token of its own, and writes the text of the gap.
//!
//! A file names these tokens, or they are known by their spellings. The spellings are llama.cpp's.

use stages::gguf::Metadata;

use super::TextError;
use super::token_kind::TokenKind;

/// The ids that a file names. All may be absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FimFields {
    /// `tokenizer.ggml.fim_pre_token_id`.
    pub prefix: Option<u32>,
    /// `tokenizer.ggml.fim_suf_token_id`.
    pub suffix: Option<u32>,
    /// `tokenizer.ggml.fim_mid_token_id`.
    pub middle: Option<u32>,
    /// `tokenizer.ggml.fim_rep_token_id`.
    pub repository: Option<u32>,
    /// `tokenizer.ggml.fim_sep_token_id`.
    pub file_separator: Option<u32>,
}

/// The tokens of a model that can fill in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FimTokens {
    /// Stands before the text that comes before the gap.
    pub prefix: u32,
    /// Stands before the text that comes after the gap.
    pub suffix: u32,
    /// Stands before the text of the gap.
    pub middle: u32,
    /// Stands before the name of a repository, if the model knows repositories.
    pub repository: Option<u32>,
    /// Stands before the name of a file, if the model knows files.
    pub file_separator: Option<u32>,
}

const PREFIXES: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
];
const SUFFIXES: &[&str] = &[
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
];
const MIDDLES: &[&str] = &[
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];
const REPOSITORIES: &[&str] = &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"];
const FILE_SEPARATORS: &[&str] = &["<|file_sep|>"];

/// The tokens for filling in the middle, if there is one of each of the first three kinds. Those known by their
/// spellings become control tokens, so that no client's text becomes one.
pub(super) fn fim(tokens: &[String], kinds: &mut [TokenKind], named: &FimFields) -> Option<FimTokens> {
    let mut find = |named: Option<u32>, spellings: &[&str]| {
        named.or_else(|| {
            let spelled = |spelling: &&str| tokens.iter().position(|token| token == spelling);
            let id = spellings.iter().find_map(spelled)?;
            kinds[id] = TokenKind::Control;
            u32::try_from(id).ok()
        })
    };
    let (prefix, suffix) = (find(named.prefix, PREFIXES), find(named.suffix, SUFFIXES));
    let middle = find(named.middle, MIDDLES);
    let repository = find(named.repository, REPOSITORIES);
    let file_separator = find(named.file_separator, FILE_SEPARATORS);
    Some(FimTokens { prefix: prefix?, suffix: suffix?, middle: middle?, repository, file_separator })
}

// === impl FimFields ===

impl FimFields {
    /// Reads the ids from a model file's metadata, under their names of today or those of older files.
    pub(super) fn read(metadata: &Metadata) -> Result<Self, TextError> {
        let id = |name: &str| metadata.get_u32(&format!("tokenizer.ggml.{name}_token_id"));
        let either = |name, older| Ok::<_, TextError>(id(name)?.or(id(older)?));
        Ok(Self {
            prefix: either("fim_pre", "prefix")?,
            suffix: either("fim_suf", "suffix")?,
            middle: either("fim_mid", "middle")?,
            repository: id("fim_rep")?,
            file_separator: id("fim_sep")?,
        })
    }

    /// The ids that are there.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        [self.prefix, self.suffix, self.middle, self.repository, self.file_separator].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use crate::text::{Special, Tokenizer};
    use crate::text::{Vocabulary, VocabularyFields};

    use super::*;

    const QWEN: [&str; 5] = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|repo_name|>", "<|file_sep|>"];

    #[test]
    fn tokens_are_known_by_their_spellings_and_become_control_tokens() {
        let mut fields = VocabularyFields::bytes_and(&QWEN);
        // Added by hand: these would be found in a client's text.
        fields.token_types[256..].fill(4);
        let vocabulary = Vocabulary::new(fields).unwrap();
        let expected =
            FimTokens { prefix: 256, suffix: 258, middle: 257, repository: Some(259), file_separator: Some(260) };
        assert_eq!(vocabulary.fim(), Some(expected));
        let ids = Tokenizer::new(&vocabulary).unwrap().encode("<|fim_prefix|>", Special::Plain).unwrap();
        assert_eq!(ids.len(), "<|fim_prefix|>".len());
    }

    #[test]
    fn tokens_that_the_file_names_come_first() {
        let mut fields = VocabularyFields::bytes_and(&QWEN);
        fields.fim = FimFields { prefix: Some(7), file_separator: Some(8), ..FimFields::default() };
        let fim = Vocabulary::new(fields).unwrap().fim().unwrap();
        assert_eq!((fim.prefix, fim.suffix, fim.file_separator), (7, 258, Some(8)));
    }

    #[test]
    fn without_one_of_the_three_a_model_cannot_fill_in() {
        let vocabulary = Vocabulary::new(VocabularyFields::bytes_and(&QWEN[..2])).unwrap();
        assert_eq!(vocabulary.fim(), None);
    }

    #[test]
    fn named_ids_outside_the_vocabulary_are_refused() {
        let mut fields = VocabularyFields::bytes_and(&[]);
        fields.fim.middle = Some(256);
        assert!(Vocabulary::new(fields).unwrap_err().to_string().contains("expected special ids below 256"));
    }
}
