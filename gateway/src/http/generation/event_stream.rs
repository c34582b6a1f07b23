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
use super::prompt_progress::PromptProgress;
use crate::http::limits::PROGRESS_PERIOD;
use crate::http::stream_response::stream_response;

/// Streams `choices`. After `ping_period` without an event it sends the dialect's ping.
pub(super) fn respond(choices: ChoiceStream, dialect: impl Dialect, ping_period: Duration) -> Response {
    let content_type = dialect.content_type();
    let prompt = dialect.wants_progress().then(PromptWatch::default);
    let mut events = EventStream { choices, dialect, ping_period, prompt, waiting: Events::default(), done: false };
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
    /// The progress that the client has heard of, if it wants to and no token has come yet.
    prompt: Option<PromptWatch>,
    waiting: Events,
    done: bool,
}

#[derive(Debug, Default)]
struct PromptWatch {
    said: Option<PromptProgress>,
    /// Time since anything was sent.
    silent: Duration,
}

// === impl EventStream ===

impl<D: Dialect> EventStream<D> {
    async fn next(&mut self) -> Option<Bytes> {
        while self.waiting.is_empty() && !self.done {
            let patience = self.prompt.as_ref().map_or(self.ping_period, |_| PROGRESS_PERIOD.min(self.ping_period));
            match tokio::time::timeout(patience, self.choices.next()).await {
                Err(_) => self.nothing_came(patience),
                Ok(Ok(Some(delta))) => {
                    self.prompt = None;
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

    /// Says how much of the prompts is computed, if that has changed, or else sends a ping when it is time.
    fn nothing_came(&mut self, waited: Duration) {
        let Some(prompt) = &mut self.prompt else { return self.dialect.ping(&mut self.waiting) };
        prompt.silent += waited;
        let progress = self.choices.prompt_progress();
        match progress.filter(|progress| !prompt.said.is_some_and(|said| said.is_same_as(progress))) {
            Some(progress) => {
                *prompt = PromptWatch { said: Some(progress), silent: Duration::ZERO };
                self.dialect.progress(progress, &mut self.waiting);
            }
            None if prompt.silent >= self.ping_period => {
                prompt.silent = Duration::ZERO;
                self.dialect.ping(&mut self.waiting);
            }
            None => {}
        }
    }
}
