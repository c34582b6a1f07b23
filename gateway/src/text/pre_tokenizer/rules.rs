//! The rules by which vocabularies split text into words, with the names that model files use for them.
//!
//! The names are those that llama.cpp knows (commit 00ad355e), and some that its files had before. Where llama.cpp
//! replaces a model's own pattern by one that its engine can run, the model's own is here.

use super::cased_letters::CASED_LETTERS;
use super::patterns::*;
use crate::text::spelling::Spelling;

/// A rule.
pub(super) struct Rule {
    pub(super) names: &'static [&'static str],
    pub(super) cuts: &'static [Cut],
    /// True if a word that is itself a token becomes that token, regardless of the merges.
    pub(super) whole_words: bool,
    /// True if a word of line breaks that is itself a token becomes that token.
    pub(super) whole_line_breaks: bool,
    /// True if a text begins with the bos token when the model file does not specify it.
    pub(super) add_bos: bool,
    /// True if a text begins with the bos token whatever the model file says.
    pub(super) always_bos: bool,
    pub(super) spelling: Spelling,
}

/// One step of a rule, which cuts every piece of the text again.
pub(super) enum Cut {
    /// Into the matches of a pattern and the text between them.
    At(&'static str),
    /// Into runs of digits, from the right in threes, and the text between them. As a pattern,
    /// `\p{N}{1,3}(?=(?:\p{N}{3})*\P{N})`, it would take time with the square of the digits.
    DigitGroups,
}

use Cut::{At, DigitGroups};

/// The usual rule: byte-level BPE, whose merges count for every word.
const fn rule(names: &'static [&'static str], cuts: &'static [Cut]) -> Rule {
    Rule {
        names,
        cuts,
        whole_words: false,
        whole_line_breaks: false,
        add_bos: false,
        always_bos: false,
        spelling: Spelling::ByteAlphabet,
    }
}

pub(super) const RULES: &[Rule] = &[
    rule(
        &["default"],
        &[At(r"[\p{P}\$\+<=>\^~\|]+"), At(CONTRACTIONS_AND_WORDS), At(r"\p{N}+"), At("[0-9][0-9][0-9]")],
    ),
    rule(
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "gigachat",
            "mellum",
            "a.x-4.0",
            "trillion",
            "exaone4",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
            "modern-bert",
            "granite-docling",
        ],
        &[At(CONTRACTIONS_AND_WORDS)],
    ),
    rule(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[At(r"\p{N}"), At(CONTRACTIONS_AND_WORDS)],
    ),
    Rule {
        whole_words: true,
        add_bos: true,
        ..rule(
            &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
            &[At(DIGITS_IN_THREES)],
        )
    },
    Rule { whole_words: true, ..rule(&["glm4", "glm5"], &[At(DIGITS_IN_THREES)]) },
    rule(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[At(DIGITS_IN_THREES)]),
    rule(
        &["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez", "kormo", "solar-open", "grok-2", "f2llmv2"],
        &[At(SINGLE_DIGITS)],
    ),
    rule(&["qwen35"], &[At(SINGLE_DIGITS_WITH_MARKS)]),
    rule(
        &["deepseek-llm"],
        &[
            At(r"[\r\n]"),
            At(CASED_LETTERS),
            At(r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+"),
            At(r"\s+$"),
            At(SAMARITAN_TO_HANGUL),
            At(r"\p{N}+"),
        ],
    ),
    rule(
        &["deepseek-coder"],
        &[At(r"[\r\n]"), At(r"\s?\p{L}+"), At(r"\s?\p{P}+"), At(SAMARITAN_TO_HANGUL), At(r"\p{N}")],
    ),
    rule(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[At(r"\p{N}{1,3}"), At(CHINESE_AND_JAPANESE), At(SIGNS_BEFORE_LETTERS)],
    ),
    rule(
        &["spark2_5"],
        &[At(r"\p{N}{1,3}"), At(CHINESE_AND_JAPANESE), At(SIGNS_BEFORE_LETTERS_SINGLE_BREAKS), At(r"\p{N}")],
    ),
    Rule { whole_words: true, ..rule(&["youtu"], &[At(EAST_ASIAN), At(CASED_CONTRACTIONS_SINGLE_DIGITS)]) },
    rule(&["falcon"], &[At(r"[\p{P}\$\+<=>\^~\|`]+"), At(CONTRACTIONS_AND_WORDS), At("[0-9][0-9][0-9]")]),
    rule(&["poro-chat", "bloom", "gpt3-finnish"], &[At(WITHOUT_CLAUSE_ENDS)]),
    rule(&["viking"], &[At(WITHOUT_CLAUSE_ENDS), At(r"\p{N}")]),
    Rule { whole_words: true, add_bos: true, ..rule(&["tekken"], &[At(CASED_WORDS_SINGLE_DIGITS)]) },
    Rule {
        add_bos: true,
        ..rule(
            &["chameleon"],
            &[
                At("<sentinel:[0-9]+>"),
                At("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
                At(r"([\t\n]|    |  )"),
                At(r"\p{N}"),
                At(r"[\p{P}!-/:-@\[-`{-~]"),
                At(CONTRACTIONS_AND_WORDS),
            ],
        )
    },
    rule(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[At(CASED_WORDS)]),
    Rule { whole_words: true, ..rule(&["granite-embed-multi-97m"], &[At(CASED_WORDS)]) },
    rule(&["tiny_aya", "cohere2moe"], &[DigitGroups, At(CASED_WORDS)]),
    rule(&["kimi-k2"], &[At(HAN_AND_CASED_WORDS)]),
    rule(&["superbpe"], &[At(r"\p{N}+"), DigitGroups]),
    rule(&["bailingmoe", "bailingmoe2", "llada-moe"], &[At(SINGLE_BREAKS)]),
    rule(&["seed-coder"], &[At(SIGNS_WITHOUT_BREAKS)]),
    rule(&["ufakzeka"], &[At(WITHOUT_CONTRACTIONS)]),
    rule(&["afmoe"], &[DigitGroups, At(ASIAN_SCRIPTS), At(SIGNS_BEFORE_LETTERS)]),
    rule(&["laguna"], &[At(LINES), At(SINGLE_DIGITS)]),
    rule(&["exaone-moe"], &[At(JOINED_WORDS)]),
    Rule { whole_words: true, ..rule(&["minicpm5"], &[At(r"\p{N}{1,3}"), At(DIGITS_TOGETHER)]) },
    rule(&["jais-2"], &[At(SPACES_IN_POWERS)]),
    Rule {
        whole_line_breaks: true,
        always_bos: true,
        spelling: Spelling::MarkedSpaces,
        ..rule(&["gemma4", "granite-embed-multi-311m"], &[At(LINES)])
    },
    Rule { spelling: Spelling::MarkedSpaces, ..rule(&["sarvam-moe"], &[At(LINES)]) },
];
