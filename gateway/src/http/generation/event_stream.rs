//! An answer as a stream of events, in the format of its dialect: server-sent events or lines of JSON.
//!
//! The response's body is the [`ChoiceStream`] itself. So generation is ahead of the client only by the contents of the
//! socket's buffers. When a client goes away, the body is dropped, and every sequence with it.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use warp::reply::Response;

use super::choice_stream::ChoiceStream;
use super::dialect::{Dialect, Events};
use crate::http::stream_response::stream_response;

/// Streams `choices`. After `ping_period` without an event it sends the dialect's ping.
pub(super) fn respond(choices: ChoiceStream, dialect: impl Dialect, ping_period: Duration) -> Response {
    let content_type = dialect.content_type();
    let mut events = EventStream { choices, dialect, ping_period, waiting: Events::default(), done: false };
    events.dialect.open(events.choices.choices(), events.choices.prompt_tokens(), &mut events.waiting);
    let events = stream::unfold(events, |mut events| async {
        let bytes = events.next().await?;
        Some((Ok::<_, Infallible>(bytes), events))
    });
    stream_response(events, content_type)
}

struct EventStream<D> {
    choices: ChoiceStream,
    dialect: D,
    ping_period: Duration,
    waiting: Events,
    done: bool,
}

// === impl EventStream ===

impl<D: Dialect> EventStream<D> {
    async fn next(&mut self) -> Option<Bytes> {
        while self.waiting.is_empty() && !self.done {
            match tokio::time::timeout(self.ping_period, self.choices.next()).await {
                Err(_) => self.dialect.ping(&mut self.waiting),
                Ok(Ok(Some(delta))) => {
                    let totals = self.choices.is_over().then(|| self.choices.totals());
                    self.dialect.delta(&delta, totals, &mut self.waiting);
                }
                Ok(Ok(None)) => {
                    self.dialect.close(self.choices.totals(), &mut self.waiting);
                    self.done = true;
                }
                Ok(Err(error)) => {
                    self.dialect.fail(&error, &mut self.waiting);
                    self.done = true;
                }
            }
        }
        self.waiting.pop()
    }
}
