//! The name of the rule that splits text into words, recognised by the patterns in `tokenizer.json`.

use serde_json::{Map, Value as Json};

use super::{bad, shown};
use crate::text::TextError;
use crate::text::pre_tokenizer::{BUILT_IN, rule_named};

/// The pattern that cuts each digit out.
const EACH_DIGIT: &str = r"\p{N}";

/// The name of the rule in `tokenizer`.
pub(super) fn name(tokenizer: &Map<String, Json>) -> Result<&'static str, TextError> {
    let mut cuts = Vec::new();
    let mut byte_level = false;
    let found = tokenizer.get("pre_tokenizer");
    collect(found.unwrap_or(&Json::Null), &mut cuts, &mut byte_level)?;
    if !byte_level {
        let known = "byte-level BPE (model BPE with the pre-tokenizer ByteLevel)".to_owned();
        return Err(TextError::UnknownModel { found: format!("BPE with pre-tokenizer {}", shown(found)), known });
    }
    let whole_words = tokenizer["model"]["ignore_merges"].as_bool().unwrap_or(false);
    rule_named(&cuts, whole_words).ok_or_else(|| TextError::UnknownPreTokenizer {
        found: format!("{} with ignore_merges {whole_words}", cuts.join("  then  ")),
        known: "the patterns of the models that llama.cpp knows".to_owned(),
    })
}

/// Appends the patterns of `step` and of the steps in it.
fn collect(step: &Json, cuts: &mut Vec<String>, byte_level: &mut bool) -> Result<(), TextError> {
    let refused =
        || bad(format!("expected a pre-tokenizer of Split, Digits and ByteLevel, found {}", shown(Some(step))));
    match step["type"].as_str() {
        Some("Sequence") => {
            let steps = step["pretokenizers"].as_array().ok_or_else(refused)?;
            steps.iter().try_for_each(|step| collect(step, cuts, byte_level))
        }
        Some("Split") => {
            let pattern = step["pattern"]["Regex"].as_str().ok_or_else(refused)?;
            // Matches stay as they are, or all but the matches of the opposite is removed.
            match (step["behavior"].as_str(), step["invert"].as_bool().unwrap_or(false)) {
                (Some("Isolated"), false) | (Some("Removed"), true) => cuts.push(pattern.to_owned()),
                _ => return Err(refused()),
            }
            Ok(())
        }
        Some("Digits") => {
            cuts.push(if step["individual_digits"] == true { EACH_DIGIT } else { r"\p{N}+" }.to_owned());
            Ok(())
        }
        Some("ByteLevel") if step["add_prefix_space"] != true => {
            *byte_level = true;
            if step["use_regex"] != false {
                cuts.push(BUILT_IN.to_owned());
            }
            Ok(())
        }
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use fancy_regex::Regex;
    use serde_json::json;

    use super::*;
    use crate::text::pre_tokenizer::PreTokenizer;

    const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    const CL100K: &str = concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    const SINGLE_DIGITS: &str = concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    const O200K: &str = concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    const TEKKEN: &str = concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    /// With line ends by themselves, as the file has them.
    const DEEPSEEK_V3: &str = concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^"##,
        "\r\n",
        r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[",
        "\r\n",
        r"]*|\s*[",
        "\r\n",
        r"]+|\s+(?!\S)|\s+"
    );

    /// Patterns of files, whether they have `ignore_merges`, and the name of their rule.
    const FILES: [(&[&str], bool, &str); 9] = [
        (&[BUILT_IN], false, "gpt-2"),
        (&[EACH_DIGIT, BUILT_IN], false, "smollm"),
        (&[CL100K], true, "llama-bpe"),
        (&[CL100K], false, "dbrx"),
        (&[SINGLE_DIGITS], false, "qwen2"),
        (&[O200K], false, "gpt-4o"),
        (&[TEKKEN], true, "tekken"),
        (&[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK_V3], false, "deepseek-v3"),
        (&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\u{d7ff}]+", EACH_DIGIT], false, "deepseek-coder"),
    ];

    /// Cuts `pieces` by `pattern`, keeping all text.
    fn cut<'t>(pattern: &str, pieces: Vec<&'t str>) -> Vec<&'t str> {
        let regex = Regex::new(if pattern == BUILT_IN { GPT_2 } else { pattern }).unwrap();
        let mut finer = Vec::new();
        for piece in pieces {
            let mut from = 0;
            for found in regex.find_iter(piece).map(Result::unwrap) {
                finer.extend([&piece[from..found.start()], found.as_str()].into_iter().filter(|text| !text.is_empty()));
                from = found.end();
            }
            finer.extend(Some(&piece[from..]).filter(|text| !text.is_empty()));
        }
        finer
    }

    fn named(steps: &Json, ignore_merges: bool) -> Result<&'static str, TextError> {
        let tokenizer = json!({"pre_tokenizer": steps, "model": {"ignore_merges": ignore_merges}});
        name(tokenizer.as_object().unwrap())
    }

    /// The steps of a file with these patterns.
    fn steps(patterns: &[&str], behavior: &str, invert: bool) -> Json {
        let step = |pattern: &&str| match *pattern {
            BUILT_IN => json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}),
            EACH_DIGIT => json!({"type": "Digits", "individual_digits": true}),
            regex => {
                let pattern = json!({"Regex": regex});
                json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert})
            }
        };
        let mut all: Vec<Json> = patterns.iter().map(step).collect();
        if !patterns.contains(&BUILT_IN) {
            all.push(json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}));
        }
        json!({"type": "Sequence", "pretokenizers": all})
    }

    #[test]
    fn patterns_and_ignore_merges_tell_the_rule_which_splits_as_they_do() {
        let texts = [
            "Hello, World! it's 2024 and we'LL see 3.14159; a1b22c333d4444",
            "  leading\n\n and   trailing \r\n\t x  \n",
            "Größe naïve Ελλάδα Привет 你好，世界！ こんにちは カタカナ 한국어 ١٢٣ e\u{301}",
            "fn main() { println!(\"{}\", x[0]); } // don't ~/path/to_file.rs",
            "\u{a0}…“quoted” — dash‑hyphen 😀👍🏽 №5 ²½",
        ];
        for (patterns, ignore_merges, expected) in FILES {
            for (behavior, invert) in [("Isolated", false), ("Removed", true)] {
                assert_eq!(named(&steps(patterns, behavior, invert), ignore_merges).unwrap(), expected);
            }
            let rule = PreTokenizer::named(expected).unwrap();
            for text in texts {
                let pieces = patterns.iter().fold(vec![text], |pieces, pattern| cut(pattern, pieces));
                assert_eq!(rule.words(text).unwrap(), pieces, "{expected}");
            }
        }
    }

    #[test]
    fn other_steps_and_patterns_are_refused_by_name() {
        let message = named(&steps(&["x+"], "Isolated", false), false).unwrap_err().to_string();
        assert!(message.contains("unknown pre-tokenizer \"x+ with ignore_merges false\""), "{message}");
        assert!(named(&steps(&[r"\u{zz}\u{"], "Isolated", false), false).is_err());
        for step in [
            json!({"type": "Metaspace"}),
            json!({"type": "ByteLevel", "add_prefix_space": true}),
            json!({"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"}),
            json!({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "MergedWithNext"}),
            json!({"type": "Sequence"}),
            json!(null),
        ] {
            let message = named(&step, false).unwrap_err().to_string();
            assert!(message.contains("expected a pre-tokenizer of Split, Digits and ByteLevel"), "{step}: {message}");
        }
        let digits = named(&json!({"type": "Digits", "individual_digits": true}), false).unwrap_err().to_string();
        assert!(digits.contains("unknown tokenizer model"), "{digits}");
    }
}
