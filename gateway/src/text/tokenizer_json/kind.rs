//! The kind of vocabulary in `tokenizer.json`: BPE over bytes, or over characters with spaces as `▁`; WordPiece; or
//! SentencePiece's unigram model.

use serde_json::{Map, Value as Json};

use super::{bad, shown};
use crate::text::TextError;

/// The mark of a token that continues a word.
pub(super) const CONTINUED: &str = "##";

/// The character in place of a space.
pub(super) const SPACE: &str = "▁";

/// A kind of vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Every byte is a character, and text is split into words first.
    ByteLevel,
    /// Spaces are `▁`, and characters that are no token become bytes: SentencePiece's vocabularies.
    MarkedSpaces {
        /// True if a text gets a space in front.
        add_space_prefix: bool,
    },
    /// WordPiece, after BERT's normalisation.
    WordPiece,
    /// The unigram model, with a space in front of a text.
    Unigram,
}

/// The kind of the vocabulary in `tokenizer`, and its model.
pub(super) fn of(tokenizer: &Map<String, Json>) -> Result<(Kind, &Map<String, Json>), TextError> {
    let Some(Json::Object(model)) = tokenizer.get("model") else {
        let found = shown(tokenizer.get("model"));
        return Err(bad(format!("expected an object \"model\" in tokenizer.json, found {found}")));
    };
    // Older files do not say what the model is: only BPE has merges.
    let kind = match model.get("type") {
        Some(kind) => kind.as_str().unwrap_or_default(),
        None if model.contains_key("merges") => "BPE",
        None => "",
    };
    match kind {
        "BPE" => {}
        "WordPiece" => return Ok((word_piece(tokenizer, model)?, model)),
        "Unigram" => return Ok((unigram(tokenizer)?, model)),
        other => return refused(format!("model {other}")),
    }
    for key in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
        let found = model.get(key).filter(|found| !found.is_null() && found.as_str() != Some(""));
        if found.is_some() {
            return refused(format!("BPE with {key} {}", shown(found)));
        }
    }
    if model.get("byte_fallback") == Some(&Json::Bool(true)) {
        return Ok((marked_spaces(tokenizer)?, model));
    }
    match tokenizer.get("normalizer") {
        None | Some(Json::Null) => Ok((Kind::ByteLevel, model)),
        // Composed characters are what nearly all texts have, and GGUF files do not say that a model wants them.
        Some(found) if found["type"] == "NFC" => Ok((Kind::ByteLevel, model)),
        found => refused(format!("BPE with normalizer {}", shown(found))),
    }
}

/// The kind of a WordPiece vocabulary, whose steps must be BERT's.
fn word_piece(tokenizer: &Map<String, Json>, model: &Map<String, Json>) -> Result<Kind, TextError> {
    let prefix = model.get("continuing_subword_prefix").and_then(Json::as_str).unwrap_or(CONTINUED);
    if prefix != CONTINUED {
        return refused(format!("WordPiece with continuing_subword_prefix {prefix:?}"));
    }
    for (step, expected) in [("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")] {
        let found = tokenizer.get(step);
        if found.is_none_or(|found| found["type"] != expected) {
            return refused(format!("WordPiece with {step} {}", shown(found)));
        }
    }
    let normalizer = &tokenizer["normalizer"];
    for flag in ["clean_text", "handle_chinese_chars"] {
        if normalizer[flag] == Json::Bool(false) {
            return refused(format!("WordPiece with {flag} false"));
        }
    }
    Ok(Kind::WordPiece)
}

/// The kind of a unigram model, whose steps must be SentencePiece's: a table of replacements, runs of spaces as one,
/// and `▁` in front of words.
fn unigram(tokenizer: &Map<String, Json>) -> Result<Kind, TextError> {
    for step in steps(tokenizer.get("normalizer"), "normalizers") {
        let known = match step["type"].as_str() {
            Some("Precompiled") => true,
            Some("Replace") => {
                step["pattern"]["Regex"] == " {2,}" && (step["content"] == " " || step["content"] == SPACE)
            }
            _ => false,
        };
        if !known {
            return refused(format!("Unigram with normalizer {}", shown(Some(step))));
        }
    }
    let splitters = steps(tokenizer.get("pre_tokenizer"), "pretokenizers");
    let marks = |step: &&Json| step["type"] == "Metaspace" && step["replacement"] == SPACE;
    let Some(marking) = splitters.iter().copied().find(marks) else {
        return refused(format!("Unigram with pre-tokenizer {}", shown(tokenizer.get("pre_tokenizer"))));
    };
    let in_front = marking["prepend_scheme"] != "never" && marking["add_prefix_space"] != Json::Bool(false);
    if !in_front || splitters.iter().any(|step| step["type"] != "Metaspace" && step["type"] != "WhitespaceSplit") {
        return refused(format!("Unigram with pre-tokenizer {}", shown(tokenizer.get("pre_tokenizer"))));
    }
    Ok(Kind::Unigram)
}

/// The steps of a normalizer or a pre-tokenizer, which may be a sequence of them under `key`.
pub(super) fn steps<'a>(found: Option<&'a Json>, key: &str) -> Vec<&'a Json> {
    match found {
        None | Some(Json::Null) => Vec::new(),
        Some(step) if step["type"] == "Sequence" => step[key].as_array().into_iter().flatten().collect(),
        Some(step) => vec![step],
    }
}

/// The kind of a BPE of characters, by the steps that mark its spaces.
fn marked_spaces(tokenizer: &Map<String, Json>) -> Result<Kind, TextError> {
    let (normalizer, splitter) = (tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer"));
    let steps = steps(normalizer, "normalizers");
    let (mut prepends, mut replaces) = (false, false);
    for step in steps {
        match step["type"].as_str() {
            Some("Prepend") if step["prepend"] == SPACE => prepends = true,
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == SPACE => replaces = true,
            _ => return refused(format!("BPE of characters with normalizer {}", shown(Some(step)))),
        }
    }
    let add_space_prefix = match splitter {
        None | Some(Json::Null) if replaces => prepends,
        // There are no spaces left to split at.
        Some(step) if replaces && step["type"] == "Split" && step["pattern"]["String"] == " " => prepends,
        Some(step) if !replaces && step["type"] == "Metaspace" && step["replacement"] == SPACE => {
            match (step["prepend_scheme"].as_str(), step["add_prefix_space"].as_bool()) {
                (Some("never"), _) | (None, Some(false)) => false,
                (Some("always" | "first") | None, _) => true,
                _ => return refused(format!("BPE of characters with pre-tokenizer {}", shown(splitter))),
            }
        }
        _ => return refused(format!("BPE of characters with pre-tokenizer {}", shown(splitter))),
    };
    Ok(Kind::MarkedSpaces { add_space_prefix })
}

fn refused<T>(found: String) -> Result<T, TextError> {
    let known = "byte-level BPE (model BPE with the pre-tokenizer ByteLevel), BPE with spaces as ▁ and bytes for \
                 characters that are no token, WordPiece with BERT's steps, and Unigram with SentencePiece's";
    Err(TextError::UnknownModel { found, known: known.to_owned() })
}
