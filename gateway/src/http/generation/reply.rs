//! The response to a request with running sequences: one body when all are complete, or server-sent events.

use std::time::Duration;

use http::StatusCode;
use warp::reply::Response;

use super::choice_stream::ChoiceStream;
use super::dialect::{Choice, Dialect};
use super::sse;
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
    if stream { Ok(sse::respond(choices, dialect, ping_period)) } else { respond_whole(choices, &dialect).await }
}

async fn respond_whole(mut running: ChoiceStream, dialect: &impl Dialect) -> Result<Response, ApiError> {
    let mut choices: Vec<_> = (0..running.choices()).map(|_| Choice::default()).collect();
    while let Some(next) = running.next().await? {
        let choice = &mut choices[next.choice];
        choice.text.push_str(&next.delta.text);
        choice.logprobs.extend(next.delta.logprobs);
        choice.ended = next.delta.end.and_then(Result::ok);
    }
    Ok(json_response(StatusCode::OK, &dialect.body(choices, running.totals())))
}
