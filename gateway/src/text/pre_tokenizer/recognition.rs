//! Finds the rule that cuts by given patterns: those of other files than GGUF's do not name theirs.

use super::patterns::CONTRACTIONS_AND_WORDS;
use super::rules::{Cut, RULES, Rule};
use crate::text::spelling::Spelling;

/// The mark in place of the pattern that `ByteLevel` of `tokenizer.json` has built in, which is GPT-2's.
pub(in crate::text) const BUILT_IN: &str = "ByteLevel";

/// The first name of the rule that cuts by `patterns` alone, of those for the byte alphabet. `whole_words` is true if a
/// word that is itself a token becomes that token.
pub(in crate::text) fn rule_named(patterns: &[String], whole_words: bool) -> Option<&'static str> {
    let patterns: Vec<String> = patterns.iter().map(|pattern| canonical(pattern)).collect();
    let same = |rule: &&Rule| {
        let name = rule.names.first().copied().unwrap_or_default();
        let cut = |(found, cut): (&String, &Cut)| match cut {
            Cut::At(pattern) if found == BUILT_IN => *pattern == CONTRACTIONS_AND_WORDS,
            // Its merges have no two digits, so it does not matter where runs of them are cut.
            Cut::At(r"\p{N}+") if name == "deepseek-llm" => found == r"\p{N}",
            Cut::At(pattern) => *found == canonical(pattern),
            Cut::DigitGroups => false,
        };
        let spelled = matches!(rule.spelling, Spelling::ByteAlphabet) && rule.whole_words == whole_words;
        spelled && rule.cuts.len() == patterns.len() && patterns.iter().zip(rule.cuts).all(cut)
    };
    RULES.iter().find(same).and_then(|rule| rule.names.first().copied())
}

/// A pattern in the one of its spellings that the rules have: characters by themselves, line ends by letters, and the
/// contractions of either case.
fn canonical(pattern: &str) -> String {
    let mut spelled = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find(r"\u{") {
        let (before, escape) = rest.split_at(at);
        spelled.push_str(before);
        let digits = escape[3..].split_once('}').map(|(digits, _)| digits);
        let character = digits.and_then(|digits| char::from_u32(u32::from_str_radix(digits, 16).ok()?));
        let Some((digits, character)) = digits.zip(character) else {
            spelled.push_str(r"\u{");
            rest = &escape[3..];
            continue;
        };
        spelled.push(character);
        rest = &escape[3 + digits.len() + 1..];
    }
    spelled.push_str(rest);
    let contractions = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
    let spelled = spelled.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", contractions);
    spelled.replace('\r', r"\r").replace('\n', r"\n")
}
