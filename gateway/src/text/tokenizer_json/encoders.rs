//! The metadata of the vocabularies that encoders have: WordPiece and unigram models.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};
use stages::gguf::Metadata;

use super::kind::steps;
use super::{bad, shown};
use crate::text::TextError;

/// The score of tokens that are added to a unigram model's pieces.
const ADDED_SCORE: f32 = 0.0;

/// Writes the changes to a text before it is divided by WordPiece.
pub(super) fn describe_word_piece(tokenizer: &Map<String, Json>, metadata: &mut Metadata) {
    for (ours, theirs) in [("lowercase", "lowercase"), ("strip_accents", "strip_accents")] {
        if let Some(flag) = tokenizer.get("normalizer").and_then(|step| step[theirs].as_bool()) {
            metadata.insert(&format!("tokenizer.ggml.normalizer.{ours}"), flag.into());
        }
    }
}

/// Writes the changes to a text before it is divided by a unigram model.
pub(super) fn describe_unigram(tokenizer: &Map<String, Json>, metadata: &mut Metadata) -> Result<(), TextError> {
    metadata.insert("tokenizer.ggml.add_space_prefix", true.into());
    metadata.insert("tokenizer.ggml.remove_extra_whitespaces", true.into());
    let table =
        steps(tokenizer.get("normalizer"), "normalizers").into_iter().find(|step| step["type"] == "Precompiled");
    let Some(table) = table.map(|step| &step["precompiled_charsmap"]).filter(|table| !table.is_null()) else {
        return Ok(());
    };
    let bytes = table.as_str().and_then(|text| STANDARD.decode(text).ok());
    let wrong = || bad(format!("expected base64 as precompiled_charsmap, found {}", shown(Some(table))));
    let numbers: Vec<i32> = bytes.ok_or_else(wrong)?.into_iter().map(i32::from).collect();
    metadata.insert("tokenizer.ggml.precompiled_charsmap", numbers.as_slice().into());
    Ok(())
}

/// The scores of a unigram model's pieces, for `count` tokens.
pub(super) fn scores(model: &Map<String, Json>, count: usize) -> Result<Vec<f32>, TextError> {
    let pieces = model.get("vocab").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut scores = Vec::with_capacity(count);
    for piece in pieces {
        let score = piece.get(1).and_then(Json::as_f64).filter(|score| score.is_finite());
        let wrong = || bad(format!("expected pieces with a score, found {}", shown(Some(piece))));
        scores.push(score.ok_or_else(wrong)? as f32);
    }
    scores.resize(count, ADDED_SCORE);
    Ok(scores)
}
