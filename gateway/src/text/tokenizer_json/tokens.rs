//! Tokens, their types and the merges in `tokenizer.json`.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};
use stages::gguf::Metadata;

use super::kind::{CONTINUED, SPACE};
use super::{bad, shown};
use crate::text::TextError;

/// Highest accepted number of a token: four times that of the largest vocabulary in use.
const TOKENS_MAX: usize = 1 << 20;

/// Types of tokens by GGUF's numbers.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Spellings that are control tokens even if a file does not say so.
const CONTROL_SPELLINGS: [&str; 3] = ["<pad>", "<mask>", "<2mass>"];
/// Beginnings and ends of such spellings.
const CONTROL_MARKS: [(&str, &str); 3] = [("<|", "|>"), ("<｜", "｜>"), ("<unused", ">")];

/// Every token with its type, by id.
pub(super) struct Tokens {
    spellings: Vec<String>,
    types: Vec<i32>,
    ids: HashMap<String, u32>,
}

/// The merges of `model`, each as `left right`.
pub(super) fn merges(model: &Map<String, Json>) -> Result<Vec<String>, TextError> {
    let Some(Json::Array(merges)) = model.get("merges") else {
        return Err(bad(format!("expected a list \"merges\" in tokenizer.json, found {}", shown(model.get("merges")))));
    };
    let merge = |merge: &Json| match merge {
        Json::String(merge) => Some(merge.clone()),
        Json::Array(pair) => match pair.as_slice() {
            [Json::String(left), Json::String(right)] if !left.contains(' ') && !right.contains(' ') => {
                Some(format!("{left} {right}"))
            }
            _ => None,
        },
        _ => None,
    };
    let read = |found: &Json| {
        let wrong = || bad(format!("expected merges of two parts without spaces, found {}", shown(Some(found))));
        merge(found).ok_or_else(wrong)
    };
    merges.iter().map(read).collect()
}

// === impl Tokens ===

impl Tokens {
    /// The tokens of `model`, of which there are `rows` at least, and those added to it.
    pub(super) fn read(
        model: &Map<String, Json>,
        tokenizer: &Map<String, Json>,
        rows: usize,
    ) -> Result<Self, TextError> {
        let mut tokens = Self { spellings: Vec::new(), types: Vec::new(), ids: HashMap::new() };
        let falls_back = model.get("byte_fallback") == Some(&Json::Bool(true));
        let kind = |spelling: &str| if falls_back && is_byte(spelling) { BYTE } else { NORMAL };
        match model.get("vocab") {
            Some(Json::Object(vocabulary)) => {
                for (spelling, id) in vocabulary {
                    tokens.set(id, spelling, kind(spelling), false)?;
                }
            }
            // A unigram model's pieces are numbered by their place.
            Some(Json::Array(pieces)) if model.get("type").is_some_and(|kind| kind == "Unigram") => {
                for (id, piece) in pieces.iter().enumerate() {
                    let wrong = || bad(format!("expected pieces with a spelling, found {}", shown(Some(piece))));
                    let spelling = piece.get(0).and_then(Json::as_str).ok_or_else(wrong)?;
                    tokens.set(&id.into(), spelling, kind(spelling), false)?;
                }
            }
            found => {
                let expected = "expected an object \"vocab\" in tokenizer.json, or a list of a model Unigram";
                return Err(bad(format!("{expected}, found {}", shown(found))));
            }
        }
        let none = Vec::new();
        let added = match tokenizer.get("added_tokens") {
            Some(Json::Array(added)) => added,
            None | Some(Json::Null) => &none,
            found => return Err(bad(format!("expected a list \"added_tokens\", found {}", shown(found)))),
        };
        for token in added {
            let Some(spelling) = token.get("content").and_then(Json::as_str) else {
                return Err(bad(format!("expected added tokens with a content, found {}", shown(Some(token)))));
            };
            let control = token.get("special") == Some(&Json::Bool(true)) || looks_like_control(spelling);
            let kind = if control { CONTROL } else { USER_DEFINED };
            tokens.set(token.get("id").unwrap_or(&Json::Null), spelling, kind, true)?;
        }
        if let Some(unknown) = unknown(model, &tokens) {
            tokens.types[unknown as usize] = UNKNOWN;
        }
        if tokens.spellings.len() > rows {
            let found = tokens.spellings.len();
            return Err(bad(format!("expected at most {rows} tokens, as the embedding has rows, found {found}")));
        }
        // Embeddings may be longer than the vocabulary, by rows that nothing was trained for.
        tokens.grow(rows);
        for (id, spelling) in tokens.spellings.iter_mut().enumerate().filter(|(_, spelling)| spelling.is_empty()) {
            *spelling = format!("[PAD{id}]");
        }
        Ok(tokens)
    }

    /// The id of the token that is spelled so.
    pub(super) fn id(&self, spelling: &str) -> Option<u32> {
        self.ids.get(spelling).copied()
    }

    /// A score for each token by which joining the neighbours of the best one gives what `merges` give in their order:
    /// the earlier the merge that makes a token, the better.
    pub(super) fn scores(&self, merges: &[String]) -> Vec<f32> {
        /// Below all others: that of tokens that nothing is joined to.
        const NEVER: f32 = -1e7;
        let mut scores = vec![NEVER; self.spellings.len()];
        for (rank, merge) in merges.iter().enumerate() {
            // The first character may itself be a space.
            let second = merge.chars().next().map_or(0, char::len_utf8);
            let Some(space) = merge[second..].find(' ').map(|at| at + second) else { continue };
            let joined = [&merge[..space], &merge[space + 1..]].concat();
            if let Some(score) = self.id(&joined).and_then(|id| scores.get_mut(id as usize)) {
                *score = score.max(-(rank as f32));
            }
        }
        scores
    }

    /// Spells the tokens of a WordPiece vocabulary as GGUF files do: with ▁ in front of those that begin a word.
    pub(super) fn mark_words(&mut self) {
        for (spelling, kind) in self.spellings.iter_mut().zip(&self.types) {
            if *kind != NORMAL && *kind != USER_DEFINED || spelling.starts_with('[') && spelling.ends_with(']') {
                continue;
            }
            *spelling = match spelling.strip_prefix(CONTINUED) {
                Some(rest) => rest.to_owned(),
                None => [SPACE, spelling].concat(),
            };
        }
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.spellings.len()
    }

    /// Writes tokens and types.
    pub(super) fn describe(self, metadata: &mut Metadata) {
        metadata.insert("tokenizer.ggml.tokens", self.spellings.as_slice().into());
        metadata.insert("tokenizer.ggml.token_type", self.types.as_slice().into());
    }

    fn set(&mut self, id: &Json, spelling: &str, kind: i32, added: bool) -> Result<(), TextError> {
        let index = id.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|id| *id < TOKENS_MAX);
        let Some(index) = index else {
            let found = shown(Some(id));
            return Err(bad(format!("expected ids below {TOKENS_MAX}, found {found} of token {spelling:?}")));
        };
        self.grow(index + 1);
        let before = &self.spellings[index];
        let is_repeated = added && before == spelling;
        if !before.is_empty() && !is_repeated {
            return Err(bad(format!("expected an id of its own for token {spelling:?}, found {index}, {before:?}'s")));
        }
        if let Some(other) = self.ids.insert(spelling.to_owned(), index as u32).filter(|other| *other != index as u32) {
            return Err(bad(format!("expected one id for token {spelling:?}, found {other} and {index}")));
        }
        spelling.clone_into(&mut self.spellings[index]);
        self.types[index] = kind;
        Ok(())
    }

    fn grow(&mut self, count: usize) {
        if self.spellings.len() < count {
            self.spellings.resize(count, String::new());
            self.types.resize(count, UNUSED);
        }
    }
}

/// True for spellings that no text has, whatever a file says of them. The practice is llama.cpp's converter's.
fn looks_like_control(spelling: &str) -> bool {
    CONTROL_SPELLINGS.contains(&spelling)
        || CONTROL_MARKS.iter().any(|(start, end)| spelling.starts_with(start) && spelling.ends_with(end))
}

/// True if an added token takes the white space behind it.
pub(super) fn takes_space_behind(tokenizer: &Map<String, Json>) -> bool {
    let added = tokenizer.get("added_tokens").and_then(Json::as_array);
    added.into_iter().flatten().any(|token| token.get("rstrip") == Some(&Json::Bool(true)))
}

/// The token of text that has no token: `model` spells it, or has its number.
pub(super) fn unknown(model: &Map<String, Json>, tokens: &Tokens) -> Option<u32> {
    let number = model.get("unk_id").and_then(Json::as_u64).and_then(|id| u32::try_from(id).ok());
    let number = number.filter(|id| (*id as usize) < tokens.len());
    model.get("unk_token").and_then(Json::as_str).map_or(number, |spelling| tokens.id(spelling))
}

/// True for `<0x0A>` and its like.
fn is_byte(spelling: &str) -> bool {
    let digits = spelling.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}
