//! The kind of BPE in `tokenizer.json`: over bytes, or over characters with spaces as `▁`.

use serde_json::{Map, Value as Json};

use super::{bad, shown};
use crate::text::TextError;

/// The character in place of a space.
const SPACE: &str = "▁";

/// A kind of BPE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Every byte is a character, and text is split into words first.
    ByteLevel,
    /// Spaces are `▁`, and characters that are no token become bytes: SentencePiece's vocabularies.
    MarkedSpaces {
        /// True if a text gets a space in front.
        add_space_prefix: bool,
    },
}

/// The kind of the BPE in `tokenizer`, and its model.
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
    if kind != "BPE" {
        return refused(format!("model {kind}"));
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

/// The kind of a BPE of characters, by the steps that mark its spaces.
fn marked_spaces(tokenizer: &Map<String, Json>) -> Result<Kind, TextError> {
    let (normalizer, splitter) = (tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer"));
    let steps = match normalizer {
        None | Some(Json::Null) => Vec::new(),
        Some(step) if step["type"] == "Sequence" => step["normalizers"].as_array().into_iter().flatten().collect(),
        Some(step) => vec![step],
    };
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
    let known = "byte-level BPE (model BPE with the pre-tokenizer ByteLevel), and BPE with spaces as ▁ and bytes for \
                 characters that are no token";
    Err(TextError::UnknownModel { found, known: known.to_owned() })
}
