//! An answer as it leaves: whole once it is complete, or as server-sent events while it is made.
//!
//! A stream's body is the request's chorus itself: nothing is made ahead of the reader but what the socket's buffers
//! hold, and a client that goes away drops the body and with it every sequence.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use warp::reply::{Reply, Response};

use super::answer::{Answer, Choice};
use super::chorus::{Chorus, Said};
use super::error::{ApiError, json_response};
use super::options::ValidOptions;
use super::score;

/// A comment: it says that the stream lives.
const PING: &[u8] = b": ping\n\n";
const DONE: &[u8] = b"data: [DONE]\n\n";

/// The answer of `chorus`, as `options` want it.
///
/// # Errors
/// A failure of a choice, before anything is sent; a stream tells it as an event.
pub(crate) async fn answer(
    chorus: Chorus,
    answer: Answer,
    options: &ValidOptions,
    ping_period: Duration,
) -> Result<Response, ApiError> {
    if options.stream { Ok(stream(chorus, answer, options, ping_period)) } else { whole(chorus, &answer).await }
}

async fn whole(mut chorus: Chorus, answer: &Answer) -> Result<Response, ApiError> {
    let mut choices: Vec<_> = (0..chorus.choices()).map(|_| Choice::default()).collect();
    while let Some(Said { choice, heard }) = chorus.next().await? {
        choices[choice].text.push_str(&heard.text);
        choices[choice].scores.extend(heard.scores);
        choices[choice].ended = heard.end.and_then(Result::ok);
    }
    Ok(json_response(StatusCode::OK, &answer.whole(&choices, chorus.usage(), chorus.timings())))
}

fn stream(chorus: Chorus, answer: Answer, options: &ValidOptions, ping_period: Duration) -> Response {
    let offsets = vec![0; chorus.choices()];
    let mut speech = Speech {
        chorus,
        answer,
        include_usage: options.include_usage,
        ping_period,
        offsets,
        queue: VecDeque::new(),
        done: false,
    };
    speech.open();
    let events = stream::unfold(speech, |mut speech| async {
        let bytes = speech.next().await?;
        Some((Ok::<_, Infallible>(bytes), speech))
    });
    let mut response = warp::reply::stream(Shared(Mutex::new(Box::pin(events)))).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// A stream in the making.
struct Speech {
    chorus: Chorus,
    answer: Answer,
    include_usage: bool,
    ping_period: Duration,
    /// Characters said so far, by choice.
    offsets: Vec<usize>,
    /// Events that wait for the reader; never more than one word's.
    queue: VecDeque<Bytes>,
    done: bool,
}

// === impl Speech ===

impl Speech {
    /// The roles, before the prompt is computed: so headers and a first event leave at once.
    fn open(&mut self) {
        for choice in 0..self.chorus.choices() {
            if let Some(opening) = self.answer.opening(choice) {
                self.send(opening);
            }
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        while self.queue.is_empty() && !self.done {
            match tokio::time::timeout(self.ping_period, self.chorus.next()).await {
                Err(_) => return Some(Bytes::from_static(PING)),
                Ok(Ok(Some(said))) => self.say(&said),
                Ok(Ok(None)) => self.close(),
                Ok(Err(error)) => self.fail(&error),
            }
        }
        self.queue.pop_front()
    }

    fn say(&mut self, said: &Said) {
        let (choice, heard) = (said.choice, &said.heard);
        if !heard.text.is_empty() || !heard.scores.is_empty() {
            let piece = self.answer.piece(choice, &heard.text, &heard.scores, self.offsets[choice]);
            self.offsets[choice] += score::characters(&heard.scores);
            self.send(piece);
        }
        if let Some(Ok(ended)) = heard.end {
            let mut ending = self.answer.ending(choice, ended);
            if self.chorus.is_over() && !self.include_usage {
                ending.insert("timings".to_owned(), self.chorus.timings());
            }
            self.send(ending);
        }
    }

    fn close(&mut self) {
        if self.include_usage {
            let mut usage = self.answer.usage(self.chorus.usage());
            usage.insert("timings".to_owned(), self.chorus.timings());
            self.queue.push_back(event(&Value::Object(usage)));
        }
        self.end();
    }

    fn fail(&mut self, error: &ApiError) {
        self.queue.push_back(event(&error.body()));
        self.end();
    }

    fn end(&mut self) {
        self.queue.push_back(Bytes::from_static(DONE));
        self.done = true;
    }

    fn send(&mut self, mut chunk: Map<String, Value>) {
        if self.include_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        self.queue.push_back(event(&Value::Object(chunk)));
    }
}

fn event(body: &Value) -> Bytes {
    Bytes::from(format!("data: {body}\n\n"))
}

/// Makes a stream that only one thread at a time may touch fit where it may be seen by several: the lock is never held.
struct Shared<S>(Mutex<Pin<Box<S>>>);

impl<S: Stream> Stream for Shared<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll_next(cx)
    }
}
