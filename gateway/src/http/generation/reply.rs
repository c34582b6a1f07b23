//! The response to a request with running sequences: one body when all are complete, or a stream of events.

use std::time::Duration;

use http::StatusCode;
use warp::reply::Response;

use super::choice_decoder::ToolCallDelta;
use super::choice_stream::ChoiceStream;
use super::dialect::{Choice, Dialect};
use super::event_stream;
use super::text_model::ToolCall;
use crate::http::error::{ApiError, json_response};

/// Answers with the text that `choices` generate, as events if `stream` is true.
///
/// # Errors
/// A failure of a choice, if the answer is one body. A stream sends the failure as an event.
pub(crate) async fn respond(
    choices: ChoiceStream,
    dialect: impl Dialect,
    stream: bool,
    ping_period: Duration,
) -> Result<Response, ApiError> {
    if stream {
        Ok(event_stream::respond(choices, dialect, ping_period))
    } else {
        respond_whole(choices, &dialect).await
    }
}

async fn respond_whole(mut running: ChoiceStream, dialect: &impl Dialect) -> Result<Response, ApiError> {
    let mut choices: Vec<_> = (0..running.choices()).map(|_| Choice::default()).collect();
    while let Some(next) = running.next().await? {
        let choice = &mut choices[next.choice];
        choice.text.push_str(&next.delta.text);
        choice.reasoning.push_str(&next.delta.reasoning);
        for call in next.delta.tool_calls {
            extend(&mut choice.tool_calls, call);
        }
        choice.logprobs.extend(next.delta.logprobs);
        choice.token_ids.extend(next.delta.token_ids);
        choice.prompt.extend(next.delta.prompt);
        choice.ended = next.delta.end.and_then(Result::ok);
        choice.stop_string = next.delta.stop_string;
    }
    let choices = running.best(choices);
    Ok(json_response(StatusCode::OK, &dialect.body(choices, running.totals())))
}

/// Adds a part of a call to the calls of a choice.
fn extend(calls: &mut Vec<ToolCall>, part: ToolCallDelta) {
    while calls.len() <= part.index {
        calls.push(ToolCall::default());
    }
    let call = &mut calls[part.index];
    call.id.push_str(&part.id.unwrap_or_default());
    call.name.push_str(&part.name.unwrap_or_default());
    call.arguments.push_str(&part.arguments);
}
