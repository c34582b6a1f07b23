//! `POST /infill`: the text of a gap in code, for editors such as llama.vim and llama.vscode.
//!
//! Parameters that a request leaves out have the values that the model's file recommends, or llama-server's defaults.
//! Of those that editors send, `samplers` chooses which filters apply, and `n_indent`, `t_max_prompt_ms` and
//! `t_max_predict_ms`, which end an answer early, have no effect.

use std::sync::Arc;

use serde_json::{Map, Value};
use warp::reply::Response;

use super::infill_answer::InfillAnswer;
use super::samplers;
use crate::http::error::ApiError;
use crate::http::generation::infill::{self, ContextFile, FittedPrompt, Gap};
use crate::http::generation::options::GenerationOptions;
use crate::http::generation::text_model::TextModel;
use crate::http::generation::{reply, start};
use crate::http::json_body::JsonBody;
use crate::http::limits::LLAMA_STOP_STRINGS_MAX;
use crate::http::params::Params;
use crate::http::served_model::ServedModel;
use crate::http::stop_strings;
use crate::http::token_options::{self, SamplingRules};
use crate::http::unsupported::{self, Neutral, is_empty, is_zero};

/// The name of a file that has none.
const FILE_NAME: &str = "tmp";

/// A request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidInfill {
    prefix: String,
    suffix: String,
    files: Vec<ContextFile>,
    options: GenerationOptions,
    stream: bool,
}

/// Parameters that would change an answer and that this page does not have. They are refused unless their value has no
/// effect.
const UNSUPPORTED: &[(&str, Neutral)] = &[
    ("grammar", is_empty),
    ("json_schema", is_empty),
    ("lora", is_empty),
    ("n_probs", is_zero),
    ("mirostat", is_zero),
    ("dynatemp_range", is_zero),
];

/// Fills the gap.
///
/// # Errors
/// Refusals of a request that is not valid, of a model that cannot fill in, and of a pipeline that cannot serve.
pub(super) async fn create(state: Arc<ServedModel>, body: JsonBody) -> Result<Response, ApiError> {
    let ValidInfill { prefix, suffix, files, options, stream } = ValidInfill::read(&body, &state)?;
    drop(body);
    let limit = options.tokens_max.unwrap_or(u32::MAX);
    let room = prompt_tokens_max(state.context_tokens(), limit);
    let prompt = start::encode(&state, "input_prefix", move |text| {
        infill::encode_in_repository(text, Gap { prefix: &prefix, suffix: &suffix }, &files, room)
    });
    let FittedPrompt { tokens, truncated } = prompt.await?;
    let answer = InfillAnswer::new(&state.model.name, truncated);
    let choices = start::start(&state, vec![tokens], &options, limit, "input_prefix").await?;
    reply::respond(choices, answer, stream, state.settings.ping_period).await
}

/// Most tokens of a prompt in a context of `context_tokens`, so that an answer of `limit` tokens fits, or one of a
/// quarter of the context if the limit is larger.
fn prompt_tokens_max(context_tokens: u32, limit: u32) -> usize {
    let answer = limit.clamp(1, (context_tokens / 4).max(1));
    context_tokens.saturating_sub(answer) as usize
}

// === impl ValidInfill ===

impl ValidInfill {
    fn read(body: &Map<String, Value>, state: &ServedModel) -> Result<Self, ApiError> {
        let params = Params::new(body);
        infill::check(&*state.text, "input_prefix")?;
        unsupported::refuse(&params, UNSUPPORTED, "is not supported by this page")?;
        // The beginning of the gap that is there already, such as the line with the cursor.
        let begun = params.text("prompt")?.unwrap_or_default();
        Ok(Self {
            prefix: format!("{}{begun}", params.required_text("input_prefix")?),
            suffix: params.required_text("input_suffix")?.to_owned(),
            files: files(&params)?,
            options: options(&params, &*state.text, &state.model.sampling(SamplingRules::LLAMA_SERVER))?,
            stream: params.flag("stream")?,
        })
    }
}

fn options(params: &Params<'_>, text: &dyn TextModel, rules: &SamplingRules) -> Result<GenerationOptions, ApiError> {
    let tokens = token_options::read(params, text, rules)?;
    let mut options = GenerationOptions::new(tokens.sampling.seed);
    options.tokens = tokens;
    samplers::apply(params, &mut options.tokens.sampling)?;
    // 0 asks for the prompt to be computed only, so that it is in the cache. A sequence has at least one token.
    options.tokens_max = token_options::tokens_max(params, "n_predict")?.map(|tokens| tokens.max(1));
    options.stop = stop_strings::read(params, "stop", LLAMA_STOP_STRINGS_MAX)?;
    options.ignore_eos = params.flag("ignore_eos")?;
    Ok(options)
}

fn files(params: &Params<'_>) -> Result<Vec<ContextFile>, ApiError> {
    let list = params.list("input_extra")?.unwrap_or_default();
    let file = |(index, file): (usize, &Value)| {
        let params = Params::at(&format!("input_extra[{index}]"), "an object with filename and text", file)?;
        let name = params.text("filename")?.unwrap_or(FILE_NAME).to_owned();
        Ok(ContextFile { name, text: params.required_text("text")?.to_owned() })
    };
    list.iter().enumerate().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::generation::text_model::ByteText;
    use serde_json::json;

    fn read_options(body: &Value) -> GenerationOptions {
        options(&Params::new(body.as_object().unwrap()), &ByteText, &SamplingRules::LLAMA_SERVER).unwrap()
    }

    #[test]
    fn an_answer_has_room_of_at_most_a_quarter_of_the_context() {
        assert_eq!(prompt_tokens_max(4096, 128), 3968);
        assert_eq!(prompt_tokens_max(4096, u32::MAX), 3072);
        assert_eq!(prompt_tokens_max(4096, 0), 4095);
        assert_eq!(prompt_tokens_max(0, 5), 0);
    }

    #[test]
    fn files_have_a_text_and_perhaps_a_name() {
        let read = |value: Value| {
            let body = json!({"input_extra": value});
            files(&Params::new(body.as_object().unwrap()))
        };
        let named = read(json!([{"filename": "a.rs", "text": "x"}, {"text": "y"}])).unwrap();
        assert_eq!(named.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a.rs", "tmp"]);
        for (extra, param) in [
            (json!("x"), "input_extra"),
            (json!(["x"]), "input_extra[0]"),
            (json!([{"filename": "a"}]), "input_extra[0].text"),
            (json!([{"filename": 5, "text": ""}]), "input_extra[0].filename"),
        ] {
            assert_eq!(read(extra).unwrap_err().json()["error"]["param"], param);
        }
    }

    #[test]
    fn a_request_that_fills_the_cache_has_one_token() {
        let limit = |predict: i64| read_options(&json!({"n_predict": predict})).tokens_max;
        assert_eq!([-1, 0, 7].map(limit), [Some(u32::MAX), Some(1), Some(7)]);
    }

    #[test]
    fn the_defaults_are_llama_servers() {
        let options = read_options(&json!({}));
        let sampling = options.tokens.sampling;
        assert_eq!((sampling.temperature, sampling.top_k), (0.8, 40));
        assert_eq!((sampling.top_p, sampling.min_p, options.tokens_max), (0.95, 0.05, None));
    }
}
