//! Splits text into the words that byte-pair merging works within, by the rule that a model file names.
//!
//! A rule is a list of patterns. The first cuts the text into its matches and the text between them. Each further one
//! cuts every piece again. The patterns are those that the vocabularies were trained with. They are listed here as
//! llama.cpp (b7000 and later) and the models' own tokenizer files have them. An unknown name is refused, because a
//! wrong rule gives plausible tokens and a worse model.

use fancy_regex::Regex;

use super::TextError;

/// A rule, with the names that model files use for it.
struct Rule {
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    /// True if a word that is itself a token becomes that token, regardless of the merges.
    whole_words: bool,
    /// True if a text begins with the bos token when the model file does not specify it.
    add_bos: bool,
}

const CONTRACTIONS_AND_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

const DIGITS_IN_THREES: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const SINGLE_DIGITS: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const SINGLE_DIGITS_WITH_MARKS: &str = concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Chinese and everything from Samaritan to Hangul.
const SAMARITAN_TO_HANGUL: &str = r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+";

/// Letters that have case, as deepseek-llm lists them.
const CASED_LETTERS: &str = concat!(
    r"\s?[",
    r"\u{41}-\u{5A}\u{61}-\u{7A}\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}",
    r"\u{295}-\u{2AF}\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}",
    r"\u{38E}-\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}",
    r"\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}",
    r"\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}",
    r"\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}",
    r"\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}",
    r"\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}",
    r"\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}",
    r"\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}",
    r"\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}",
    r"\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}",
    r"\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}",
    r"]+"
);

const RULES: &[Rule] = &[
    Rule {
        names: &["default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", CONTRACTIONS_AND_WORDS, r"\p{N}+", r"[0-9][0-9][0-9]"],
        whole_words: false,
        add_bos: false,
    },
    Rule {
        names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "mellum", "a.x-4.0", "trillion", "exaone4"],
        patterns: &[CONTRACTIONS_AND_WORDS],
        whole_words: false,
        add_bos: false,
    },
    Rule {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        patterns: &[r"\p{N}", CONTRACTIONS_AND_WORDS],
        whole_words: false,
        add_bos: false,
    },
    Rule {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        patterns: &[DIGITS_IN_THREES],
        whole_words: true,
        add_bos: true,
    },
    Rule { names: &["glm4", "glm5"], patterns: &[DIGITS_IN_THREES], whole_words: true, add_bos: false },
    Rule {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        patterns: &[DIGITS_IN_THREES],
        whole_words: false,
        add_bos: false,
    },
    Rule {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "kormo", "solar-open", "grok-2"],
        patterns: &[SINGLE_DIGITS],
        whole_words: false,
        add_bos: false,
    },
    Rule { names: &["qwen35"], patterns: &[SINGLE_DIGITS_WITH_MARKS], whole_words: false, add_bos: false },
    Rule {
        names: &["deepseek-llm"],
        patterns: &[
            r"[\r\n]",
            CASED_LETTERS,
            r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+",
            r"\s+$",
            SAMARITAN_TO_HANGUL,
            r"\p{N}+",
        ],
        whole_words: false,
        add_bos: false,
    },
    Rule {
        names: &["deepseek-coder"],
        patterns: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", SAMARITAN_TO_HANGUL, r"\p{N}"],
        whole_words: false,
        add_bos: false,
    },
    Rule {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        patterns: &[
            r"\p{N}{1,3}",
            r"[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+",
            concat!(
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
                r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
        ],
        whole_words: false,
        add_bos: false,
    },
    Rule {
        names: &["falcon"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", CONTRACTIONS_AND_WORDS, r"[0-9][0-9][0-9]"],
        whole_words: false,
        add_bos: false,
    },
];

/// A rule with its compiled patterns.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    patterns: Vec<Regex>,
    /// True if a word that is itself a token becomes that token, regardless of the merges.
    pub(super) whole_words: bool,
    /// True if a text begins with the bos token when the model file does not specify it.
    pub(super) add_bos: bool,
}

// === impl PreTokenizer ===

impl PreTokenizer {
    /// The rule that model files call `name`.
    pub(super) fn named(name: &str) -> Result<Self, TextError> {
        let Some(rule) = RULES.iter().find(|rule| rule.names.contains(&name)) else {
            let known: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
            return Err(TextError::UnknownPreTokenizer { found: name.to_owned(), known: known.join(", ") });
        };
        let compile = |pattern: &&str| Regex::new(pattern).map_err(|cause| TextError::Split(Box::new(cause)));
        let patterns = rule.patterns.iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { patterns, whole_words: rule.whole_words, add_bos: rule.add_bos })
    }

    /// The words of `text`, in order and without gaps.
    pub(super) fn words<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, TextError> {
        let mut words = vec![text];
        for pattern in &self.patterns {
            let mut finer = Vec::with_capacity(words.len());
            for word in words {
                split(pattern, word, &mut finer)?;
            }
            words = finer;
        }
        Ok(words)
    }
}

/// Appends the matches of `pattern` in `text`, and the text between them, to `pieces`.
fn split<'t>(pattern: &Regex, text: &'t str, pieces: &mut Vec<&'t str>) -> Result<(), TextError> {
    let mut from = 0;
    for found in pattern.find_iter(text) {
        let found = found.map_err(|cause| TextError::Split(Box::new(cause)))?;
        pieces.extend([&text[from..found.start()], found.as_str()].into_iter().filter(|piece| !piece.is_empty()));
        from = found.end();
    }
    pieces.extend(Some(&text[from..]).filter(|piece| !piece.is_empty()));
    Ok(())
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
        for name in ["gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-llm", "deepseek-v3"] {
            assert_eq!(words(name, &text).concat(), text, "{name}");
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
