//! The tokens that begin and end texts.

use serde_json::{Map, Value as Json};
use stages::gguf::Metadata;

use super::tokens::{Tokens, unknown};
use super::{FolderFiles, bad, shown};
use crate::text::TextError;

/// Keys of the further tokens that end an answer, in GGUF files.
const FURTHER_ENDS: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// The special tokens that a text is put between.
#[derive(Default)]
struct Frame {
    first: Option<u32>,
    last: Option<u32>,
}

/// Writes the ids of special tokens, and whether texts begin and end with them.
pub(super) fn describe(
    files: &FolderFiles,
    model: &Map<String, Json>,
    tokens: &Tokens,
    metadata: &mut Metadata,
) -> Result<(), TextError> {
    let first = |keys: [[&str; 2]; 2]| match named(files, tokens, keys[0][0], keys[0][1])? {
        None => named(files, tokens, keys[1][0], keys[1][1]),
        found => Ok(found),
    };
    // BERT's vocabularies have other words for the tokens that a text is put between.
    let bos = first([["bos_token", "bos_token_id"], ["cls_token", "cls_token_id"]])?;
    let eos = first([["eos_token", "eos_token_id"], ["sep_token", "sep_token_id"]])?;
    if let Some(separator) = named(files, tokens, "sep_token", "sep_token_id")? {
        metadata.insert("tokenizer.ggml.seperator_token_id", separator.into());
    }
    for (key, id) in [("bos", bos), ("eos", eos), ("padding", named(files, tokens, "pad_token", "pad_token_id")?)] {
        if let Some(id) = id {
            metadata.insert(&format!("tokenizer.ggml.{key}_token_id"), id.into());
        }
    }
    if let Some(unknown) = unknown(model, tokens) {
        metadata.insert("tokenizer.ggml.unknown_token_id", unknown.into());
    }
    let mut ends = ids(files.generation_config.get("eos_token_id"), tokens)?;
    ends.extend(ids(files.config.get("eos_token_id"), tokens)?);
    ends.retain(|id| Some(*id) != eos);
    ends.dedup();
    // More than two further ends are not known. Their spellings are in the list of ends that every file shares.
    for (key, id) in FURTHER_ENDS.into_iter().zip(ends) {
        metadata.insert(key, id.into());
    }
    let frame = frame(files.tokenizer.get("post_processor"), tokens);
    let flag = |key: &str| files.tokenizer_config.get(key).and_then(Json::as_bool);
    let add_bos = flag("add_bos_token").unwrap_or(bos.is_some() && frame.first == bos);
    metadata.insert("tokenizer.ggml.add_bos_token", (add_bos && bos.is_some()).into());
    let add_eos = flag("add_eos_token").unwrap_or(eos.is_some() && frame.last == eos);
    metadata.insert("tokenizer.ggml.add_eos_token", (add_eos && eos.is_some()).into());
    Ok(())
}

/// The token that `tokenizer_config.json` spells under `key`, or the first id under `id_key` of the other files.
fn named(files: &FolderFiles, tokens: &Tokens, key: &str, id_key: &str) -> Result<Option<u32>, TextError> {
    let spelling = match files.tokenizer_config.get(key) {
        Some(Json::String(spelling)) => Some(spelling.as_str()),
        Some(Json::Object(token)) => token.get("content").and_then(Json::as_str),
        _ => None,
    };
    if let Some(spelling) = spelling {
        let absent = || bad(format!("expected the {key} {spelling:?} among the tokens, found none spelled so"));
        return tokens.id(spelling).map(Some).ok_or_else(absent);
    }
    let own = ids(files.generation_config.get(id_key), tokens)?.first().copied();
    match own {
        Some(id) => Ok(Some(id)),
        None => Ok(ids(files.config.get(id_key), tokens)?.first().copied()),
    }
}

/// The ids in `value`: one, a list, or none.
fn ids(value: Option<&Json>, tokens: &Tokens) -> Result<Vec<u32>, TextError> {
    let id = |value: &Json| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < tokens.len());
        id.ok_or_else(|| bad(format!("expected special ids below {}, found {}", tokens.len(), shown(Some(value)))))
    };
    match value {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(values)) => values.iter().map(id).collect(),
        Some(value) => Ok(vec![id(value)?]),
    }
}

/// The special tokens at both ends of a text, as the post-processor's template has them.
fn frame(processor: Option<&Json>, tokens: &Tokens) -> Frame {
    let Some(processor) = processor else { return Frame::default() };
    match processor["type"].as_str() {
        Some("Sequence") => {
            let parts = processor["processors"].as_array().into_iter().flatten();
            parts.map(|part| frame(Some(part), tokens)).fold(Frame::default(), |all, own| Frame {
                first: all.first.or(own.first),
                last: all.last.or(own.last),
            })
        }
        Some("TemplateProcessing") => {
            let single = processor["single"].as_array().map(Vec::as_slice).unwrap_or_default();
            let special = |part: &Json| tokens.id(part["SpecialToken"]["id"].as_str()?);
            Frame { first: single.first().and_then(special), last: single.last().and_then(special) }
        }
        // BERT's and RoBERTa's own have both tokens as pairs of spelling and number.
        Some("BertProcessing" | "RobertaProcessing") => {
            let special = |key: &str| tokens.id(processor[key][0].as_str()?);
            Frame { first: special("cls"), last: special("sep") }
        }
        _ => Frame::default(),
    }
}
