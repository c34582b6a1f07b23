//! SentencePiece's unigram model: the division of a text into tokens whose scores, logarithms of probabilities, have
//! the greatest sum.
//!
//! The `tokenizers` crate's model counts control tokens as text, since its tokens are numbered by their place in one
//! list. Here, no text becomes a control token.

use std::collections::HashMap;

use super::TextError;
use super::charsmap::Charsmap;
use super::spelling::SPACE;
use super::token_kind::TokenKind;
use super::vocabulary::Vocabulary;

/// The score of an unknown character is so much lower than the lowest of a token, as in SentencePiece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// The tokens of a Unigram vocabulary, with their scores.
#[derive(Debug)]
pub(super) struct Unigram {
    tokens: HashMap<Box<str>, (u32, f64)>,
    /// The longest token, in bytes of its spelling.
    longest: usize,
    unknown: u32,
    unknown_score: f64,
    charsmap: Charsmap,
    add_space_prefix: bool,
    remove_extra_whitespaces: bool,
}

/// The best division of the text before some place: its score, and its last token with the place where that begins.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    token: u32,
    start: usize,
}

// === impl Unigram ===

impl Unigram {
    /// The tokens of `vocabulary`.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] when there is no token for unknown text, or the table of replacements is damaged.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let mut tokens: HashMap<Box<str>, _> = HashMap::with_capacity(vocabulary.len());
        let mut lowest = f64::MAX;
        for ((id, (token, kind)), &score) in (0_u32..).zip(vocabulary.tokens()).zip(vocabulary.scores()) {
            let score = match kind {
                TokenKind::Normal => {
                    lowest = lowest.min(score.into());
                    score.into()
                }
                TokenKind::Unused => score.into(),
                // Better than every other token, whose scores are negative.
                TokenKind::UserDefined => 0.0,
                TokenKind::Control | TokenKind::Unknown | TokenKind::Byte => continue,
            };
            tokens.insert(Box::from(token), (id, score));
        }
        let unknown = vocabulary.unknown();
        let normalizer = vocabulary.normalizer();
        Ok(Self {
            longest: tokens.keys().map(|token| token.len()).max().unwrap_or(0),
            tokens,
            unknown: unknown.ok_or_else(|| TextError::Vocabulary("expected a token for unknown text".to_owned()))?,
            unknown_score: lowest.min(0.0) - UNKNOWN_PENALTY,
            charsmap: Charsmap::new(&normalizer.precompiled_charsmap)?,
            add_space_prefix: normalizer.add_space_prefix.unwrap_or(false),
            remove_extra_whitespaces: normalizer.remove_extra_whitespaces.unwrap_or(false),
        })
    }

    /// Appends the tokens of `text` to `ids`. Neighbouring characters without tokens become one unknown token.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let text = self.normalize(text);
        let best = self.divide(&text);
        let before = ids.len();
        let mut end = text.len();
        while end > 0 {
            let Best { token, start, .. } = best[end];
            if token != self.unknown || ids[before..].last() != Some(&token) {
                ids.push(token);
            }
            end = start;
        }
        ids[before..].reverse();
    }

    /// The best divisions of the beginnings of `text`, by their lengths in bytes.
    fn divide(&self, text: &str) -> Vec<Best> {
        let start = Best { score: f64::MIN, token: self.unknown, start: 0 };
        let mut best = vec![start; text.len() + 1];
        best[0].score = 0.0;
        for (start, character) in text.char_indices() {
            let before = best[start].score;
            let one = start + character.len_utf8();
            let last = text.len().min(start + self.longest);
            let mut known = false;
            for end in (one..=last).filter(|&end| text.is_char_boundary(end)) {
                let Some(&(token, score)) = self.tokens.get(&text[start..end]) else { continue };
                known |= end == one;
                if before + score > best[end].score {
                    best[end] = Best { score: before + score, token, start };
                }
            }
            if !known && before + self.unknown_score > best[one].score {
                best[one] = Best { score: before + self.unknown_score, token: self.unknown, start };
            }
        }
        best
    }

    /// The text with replacements, and with spaces as ▁.
    fn normalize(&self, text: &str) -> String {
        let replaced = self.charsmap.apply(text);
        let mut normalized = String::with_capacity(replaced.len() + 3);
        let (mut begun, mut in_word) = (false, false);
        for character in replaced.chars() {
            if character == ' ' {
                in_word = false;
                if !self.remove_extra_whitespaces {
                    normalized.push_str(SPACE);
                }
                continue;
            }
            if !in_word && (self.remove_extra_whitespaces || self.add_space_prefix && !begun) {
                normalized.push_str(SPACE);
                begun = true;
            }
            in_word = true;
            normalized.push(character);
        }
        normalized
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::vocabulary_fields::VocabularyFields;
    use crate::text::vocabulary_model::VocabularyModel;

    fn spelled(text: &str, set: impl Fn(&mut VocabularyFields)) -> Vec<String> {
        let pieces = [("▁", -2.0), ("a", -3.0), ("b", -3.0), ("ab", -4.0), ("▁a", -4.5), ("abb", -9.5)];
        let mut fields = VocabularyFields::pieces_and(&pieces);
        fields.model = VocabularyModel::Unigram;
        set(&mut fields);
        let vocabulary = Vocabulary::new(fields).unwrap();
        let mut ids = Vec::new();
        Unigram::new(&vocabulary).unwrap().encode(text, &mut ids);
        ids.iter().map(|&id| vocabulary.spelling(Some(id)).to_owned()).collect()
    }

    #[test]
    fn the_division_with_the_best_sum_of_scores_is_taken() {
        assert_eq!(spelled("ab", |_| {}), ["ab"]);
        assert_eq!(spelled("abb", |_| {}), ["ab", "b"]);
        assert_eq!(spelled(" a b", |_| {}), ["▁a", "▁", "b"]);
    }

    #[test]
    fn neighbouring_unknown_characters_are_one_token() {
        assert_eq!(spelled("aéöb中", |_| {}), ["a", "<unk>", "b", "<unk>"]);
        assert_eq!(spelled("<s>", |_| {}), ["<unk>"]);
        assert_eq!(spelled("", |_| {}), [""; 0]);
    }

    #[test]
    fn white_space_follows_the_file() {
        let prefix = |fields: &mut VocabularyFields| fields.normalizer.add_space_prefix = Some(true);
        assert_eq!(spelled("b  b ", prefix).concat(), "▁b▁▁b▁");
        let removed = |fields: &mut VocabularyFields| fields.normalizer.remove_extra_whitespaces = Some(true);
        assert_eq!(spelled("  b  b ", removed).concat(), "▁b▁b");
    }
}
