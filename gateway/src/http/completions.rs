//! `POST /v1/completions`.

use std::sync::Arc;

use bytes::Bytes;
use warp::reply::Response;

use super::answer::{Answer, Shape};
use super::door::Door;
use super::error::ApiError;
use super::fields::{Fields, parse_object};
use super::options::ValidOptions;
use super::prompt::{self, Prompt};
use super::text::{TextError, TextModel};
use super::{speech, submit};

/// Tokens of an answer whose request does not say: OpenAI's reference.
const TOKENS_MAX_DEFAULT: u32 = 16;

/// A completion request that can be served.
#[derive(Debug, Clone, PartialEq)]
struct ValidCompletion {
    prompts: Vec<Prompt>,
    options: ValidOptions,
    scored: bool,
}

/// Completes prompts.
///
/// # Errors
/// What is wrong with the request or with the pipeline.
pub(crate) async fn create(door: Arc<Door>, body: Bytes) -> Result<Response, ApiError> {
    let ValidCompletion { prompts, options, scored } = ValidCompletion::read(&body, &door)?;
    drop(body);
    let prompts = submit::encode(&door, "prompt", move |text| encode(text, prompts)).await?;
    let tokens_max = options.tokens_max.unwrap_or(TOKENS_MAX_DEFAULT);
    let chorus = submit::start(&door, prompts, &options, tokens_max, scored, "prompt").await?;
    let answer = Answer::new(Shape::Completion, &door.model.name, scored);
    speech::answer(chorus, answer, &options, door.settings.ping_period).await
}

// === impl ValidCompletion ===

impl ValidCompletion {
    fn read(body: &[u8], door: &Door) -> Result<Self, ApiError> {
        let map = parse_object(body)?;
        let fields = Fields::new(&map);
        let options = ValidOptions::read(&fields, &door.model, &door.settings)?;
        let prompts_max = door.settings.choices_max / options.choices;
        let prompts = prompt::read(&fields, door.text.vocab_size(), prompts_max.max(1))?;
        Ok(Self { prompts, options, scored: scored(&fields)? })
    }
}

/// Only the chosen token's probability travels: `logprobs` may be 0.
fn scored(fields: &Fields<'_>) -> Result<bool, ApiError> {
    match fields.whole("logprobs", 0..=5)? {
        None => Ok(false),
        Some(0) => Ok(true),
        Some(_) => {
            let message = "'logprobs' above 0 is not supported by this server yet.";
            Err(ApiError::unsupported("logprobs", message))
        }
    }
}

fn encode(text: &dyn TextModel, prompts: Vec<Prompt>) -> Result<Vec<Vec<u32>>, TextError> {
    let encode_one = |prompt| match prompt {
        Prompt::Text(prompt) => text.encode_prompt(&prompt),
        Prompt::Tokens(tokens) => Ok(tokens),
    };
    prompts.into_iter().map(encode_one).collect()
}
