//! `POST /tokenize`: the tokens of a text, in the form of llama-server or of vLLM.

use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::reply::Response;

use super::tokenize_params::{Form, Source, ValidTokenize};
use crate::http::error::{ApiError, json_response};
use crate::http::generation::start;
use crate::http::generation::text_model::{TextError, TextModel};
use crate::http::json_body::JsonBody;
use crate::http::params::Params;
use crate::http::served_model::ServedModel;

/// The answer.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Tokens {
    Ids { tokens: Vec<u32> },
    Pieces { tokens: Vec<TokenPiece> },
    Vllm { count: usize, max_model_len: u32, tokens: Vec<u32>, token_strs: Option<Vec<String>> },
}

/// A token and its text.
#[derive(Debug, PartialEq, Serialize)]
struct TokenPiece {
    id: u32,
    piece: Piece,
}

/// The text of a token, or its bytes if they are no UTF-8.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

/// The tokens of the text or chat in the request.
///
/// # Errors
/// A 400 that names what is wrong with the request.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let ValidTokenize { source, form } = read(&body, &state)?;
    drop(body);
    let param = match (&source, form) {
        (Source::Chat(_), _) => "messages",
        (Source::Text { .. }, Form::Vllm { .. }) => "prompt",
        (Source::Text { .. }, Form::LlamaServer { .. }) => "content",
    };
    let max_model_len = state.context_tokens();
    let encoded = start::encode(&state, param, move |text| Ok(form.answer(text, source.encode(text)?, max_model_len)));
    Ok(json_response(StatusCode::OK, &encoded.await?))
}

fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<ValidTokenize, ApiError> {
    let params = Params::new(body);
    ValidTokenize::read(&params, &state.settings)
}

// === impl Source ===

impl Source {
    fn encode(&self, model: &dyn TextModel) -> Result<Vec<u32>, TextError> {
        match self {
            Self::Text { text, special } => model.encode_text(text, *special),
            Self::Chat(conversation) => model.encode_chat(conversation),
        }
    }
}

// === impl Form ===

impl Form {
    fn answer(self, model: &dyn TextModel, tokens: Vec<u32>, max_model_len: u32) -> Tokens {
        match self {
            Self::LlamaServer { pieces: false } => Tokens::Ids { tokens },
            Self::LlamaServer { pieces: true } => {
                let piece = |id| TokenPiece { id, piece: Piece::new(model.token_piece(id)) };
                Tokens::Pieces { tokens: tokens.into_iter().map(piece).collect() }
            }
            Self::Vllm { spellings } => {
                let spelled = || tokens.iter().map(|token| model.token_spelling(*token)).collect();
                let token_strs = spellings.then(spelled);
                Tokens::Vllm { count: tokens.len(), max_model_len, tokens, token_strs }
            }
        }
    }
}

// === impl Piece ===

impl Piece {
    fn new(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_piece_that_is_no_text_is_its_bytes() {
        assert_eq!(json!(Piece::new("é".into())), json!("é"));
        assert_eq!(json!(Piece::new(vec![0xc3])), json!([195]));
    }
}
