//! Splits text into the words that byte-pair merging works within, by the rule that a model file names.
//!
//! A rule is a list of cuts. The first cuts the text into the matches of a pattern and the text between them. Each
//! further one cuts every piece again. The patterns are those that the vocabularies were trained with, as llama.cpp and
//! the models' own tokenizer files have them. An unknown name is refused, because a wrong rule gives plausible tokens
//! and a worse model.

use fancy_regex::Regex;

use super::TextError;
use super::spelling::Spelling;

mod cased_letters;
mod patterns;
mod recognition;
mod rules;

pub(super) use recognition::{BUILT_IN, rule_named};
use rules::{Cut, RULES};

/// A rule with its compiled patterns.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    steps: Vec<Step>,
    /// True if a word that is itself a token becomes that token, regardless of the merges.
    pub(super) whole_words: bool,
    /// True if a word of line breaks that is itself a token becomes that token.
    pub(super) whole_line_breaks: bool,
    /// True if a text begins with the bos token when the model file does not specify it.
    pub(super) add_bos: bool,
    /// True if a text begins with the bos token whatever the model file says.
    pub(super) always_bos: bool,
    /// The rule by which the vocabulary spells bytes.
    pub(super) spelling: Spelling,
}

/// A [`Cut`] that is ready for use.
#[derive(Debug)]
struct Step {
    pattern: Regex,
    /// True if the matches are cut again, from the right in threes.
    in_threes: bool,
}

// === impl PreTokenizer ===

impl PreTokenizer {
    /// The rule that model files call `name`.
    pub(super) fn named(name: &str) -> Result<Self, TextError> {
        let Some(rule) = RULES.iter().find(|rule| rule.names.contains(&name)) else {
            let known: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
            return Err(TextError::UnknownPreTokenizer { found: name.to_owned(), known: known.join(", ") });
        };
        Ok(Self {
            steps: rule.cuts.iter().map(Step::new).collect::<Result<_, _>>()?,
            whole_words: rule.whole_words,
            whole_line_breaks: rule.whole_line_breaks,
            add_bos: rule.add_bos,
            always_bos: rule.always_bos,
            spelling: rule.spelling,
        })
    }

    /// The words of `text`, in order and without gaps.
    pub(super) fn words<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, TextError> {
        let mut words = vec![text];
        for step in &self.steps {
            let mut finer = Vec::with_capacity(words.len());
            for word in words {
                step.split(word, &mut finer)?;
            }
            words = finer;
        }
        Ok(words)
    }
}

// === impl Step ===

impl Step {
    fn new(cut: &Cut) -> Result<Self, TextError> {
        let (pattern, in_threes) = match cut {
            Cut::At(pattern) => (*pattern, false),
            Cut::DigitGroups => (r"\p{N}+", true),
        };
        let pattern = Regex::new(pattern).map_err(|cause| TextError::Split(Box::new(cause)))?;
        Ok(Self { pattern, in_threes })
    }

    /// Appends the matches in `text`, and the text between them, to `pieces`.
    fn split<'t>(&self, text: &'t str, pieces: &mut Vec<&'t str>) -> Result<(), TextError> {
        let mut from = 0;
        for found in self.pattern.find_iter(text) {
            let found = found.map_err(|cause| TextError::Split(Box::new(cause)))?;
            push(&text[from..found.start()], pieces);
            if self.in_threes {
                push_threes(found.as_str(), pieces);
            } else {
                push(found.as_str(), pieces);
            }
            from = found.end();
        }
        push(&text[from..], pieces);
        Ok(())
    }
}

fn push<'t>(piece: &'t str, pieces: &mut Vec<&'t str>) {
    if !piece.is_empty() {
        pieces.push(piece);
    }
}

/// Appends `digits` in threes, of which the first may have less.
fn push_threes<'t>(digits: &'t str, pieces: &mut Vec<&'t str>) {
    let count = digits.chars().count();
    let mut from = 0;
    for (index, (at, _)) in digits.char_indices().enumerate() {
        if (count - index).is_multiple_of(3) {
            push(&digits[from..at], pieces);
            from = at;
        }
    }
    push(&digits[from..], pieces);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        PreTokenizer::named(name).unwrap().words(text).unwrap()
    }

    fn names() -> impl Iterator<Item = &'static str> {
        RULES.iter().flat_map(|rule| rule.names).copied()
    }

    #[test]
    fn no_name_has_two_rules() {
        let mut seen = std::collections::HashSet::new();
        assert!(names().all(|name| seen.insert(name)));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_are_known() {
        let message = PreTokenizer::named("smollm9").unwrap_err().to_string();
        assert!(message.starts_with("unknown pre-tokenizer \"smollm9\": known are default, gpt-2, "), "{message}");
        assert!(names().all(|name| message.contains(name)));
    }

    #[test]
    fn rules_differ_in_how_they_take_digits() {
        let text = "in 2024";
        assert_eq!(words("gpt-2", text), ["in", " 2024"]);
        assert_eq!(words("smollm", text), ["in", " ", "2", "0", "2", "4"]);
        assert_eq!(words("llama-bpe", text), ["in", " ", "202", "4"]);
        assert_eq!(words("qwen2", text), ["in", " ", "2", "0", "2", "4"]);
        assert_eq!(words("deepseek-v3", text), ["in", " ", "202", "4"]);
    }

    #[test]
    fn the_last_space_of_a_run_goes_with_the_next_word() {
        assert_eq!(words("gpt-2", "a   b\n\n c  "), ["a", "  ", " b", "\n\n", " c", "  "]);
        assert_eq!(words("llama-bpe", "a   b\n\n c  "), ["a", "  ", " b", "\n\n", " c", "  "]);
    }

    #[test]
    fn contractions_are_words() {
        assert_eq!(words("gpt-2", "we'll I'M"), ["we", "'ll", " I", "'", "M"]);
        assert_eq!(words("qwen2", "we'll I'M"), ["we", "'ll", " I", "'M"]);
    }

    #[test]
    fn a_hundred_thousand_spaces_are_split() {
        let text = format!("a{}b", " ".repeat(100_000));
        for name in ["gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-llm", "deepseek-v3", "jais-2", "gpt-4o"] {
            assert_eq!(words(name, &text).concat(), text, "{name}");
        }
    }

    #[test]
    fn digits_are_grouped_from_the_right_where_a_rule_says_so() {
        assert_eq!(words("superbpe", "a1234567 89"), ["a", "1", "234", "567", " ", "89"]);
        assert_eq!(words("afmoe", "12345"), ["12", "345"]);
        assert_eq!(words("tiny_aya", "١٢٣٤"), ["١", "٢٣٤"]);
        let digits = "7".repeat(1_000_000);
        assert_eq!(words("cohere2moe", &digits).len(), 333_334);
    }

    #[test]
    fn the_case_of_letters_divides_words_where_a_rule_says_so() {
        assert_eq!(words("gpt-4o", "ÉcoleHTMLx don't"), ["École", "HTMLx", " don't"]);
        assert_eq!(words("tekken", "don't 12"), ["don", "'t", " ", "1", "2"]);
        assert_eq!(words("kimi-k2", "中文abc中 文"), ["中文", "abc", "中", " ", "文"]);
    }

    #[test]
    fn every_pattern_compiles() {
        for name in names() {
            PreTokenizer::named(name).unwrap();
        }
    }

    proptest! {
        #[test]
        fn words_add_up_to_the_text_and_none_is_empty(text in "(\\PC|\\s){0,30}", rule in 0..RULES.len()) {
            let words = words(RULES[rule].names[0], &text);
            prop_assert_eq!(words.concat(), text.as_str());
            prop_assert!(words.iter().all(|word| !word.is_empty()));
        }
    }
}
