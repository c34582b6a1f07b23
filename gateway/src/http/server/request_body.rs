//! Request bodies that are not read to the end when their request is answered. A small rest is read and discarded, so
//! that the connection can be kept. With a large rest, the answer says that the connection closes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::EXPECT;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::connection::ConnectionGuard;
use crate::http::limits::{UNREAD_BYTES_MAX, UNREAD_TIME};

/// A request's body, for the page that reads it.
pub(crate) struct RequestBody(Arc<Mutex<Progress>>);

/// The same body, for the middleware, which handles the rest that the page leaves unread.
pub(crate) struct UnreadBody(Arc<Mutex<Progress>>);

struct Progress {
    incoming: Incoming,
    reading: Reading,
    /// Set by `Expect`: the client may wait for 100 Continue before it sends.
    expects: bool,
    /// Set once the answer is ready: its page reads no more.
    answered: bool,
    guard: Arc<ConnectionGuard>,
}

/// The progress of reading a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Nothing was read.
    Untouched,
    /// Reading has begun.
    Begun,
    /// The body was read to its end.
    Ended,
    /// Reading failed.
    Broken,
}

/// The treatment of the rest of a body once its answer is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestAction {
    /// Nothing to do: the body was read.
    Nothing,
    /// Read and discard the rest, and keep the connection.
    Drain,
    /// Close the connection.
    Close,
}

/// Makes two handles to one body: one for its page and one for the middleware.
pub(crate) fn split(
    headers: &HeaderMap,
    incoming: Incoming,
    guard: &Arc<ConnectionGuard>,
) -> (RequestBody, UnreadBody) {
    let reading = if incoming.is_end_stream() { Reading::Ended } else { Reading::Untouched };
    if reading == Reading::Ended {
        guard.body_received();
    }
    let expects = headers.contains_key(EXPECT);
    let progress = Progress { incoming, reading, expects, answered: false, guard: Arc::clone(guard) };
    let progress = Arc::new(Mutex::new(progress));
    (RequestBody(Arc::clone(&progress)), UnreadBody(progress))
}

/// Decides about the rest of a body. `left_bytes` is its length, if it was declared.
fn rest_action(reading: Reading, expects: bool, left_bytes: Option<u64>) -> RestAction {
    match reading {
        Reading::Ended => RestAction::Nothing,
        Reading::Broken => RestAction::Close,
        // The client got no 100 Continue, so it may send the body or the next request.
        Reading::Untouched if expects => RestAction::Close,
        _ if left_bytes.is_some_and(|bytes| bytes <= UNREAD_BYTES_MAX) => RestAction::Drain,
        _ => RestAction::Close,
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl UnreadBody ===

impl UnreadBody {
    /// Handles the rest of the body once the answer is ready. A rest to be drained is read in the background. `closes`
    /// is true if the answer already says that the connection closes. On `Close`, the caller makes the answer say so.
    pub(crate) fn finish(self, closes: bool) -> RestAction {
        let action = {
            let mut progress = lock(&self.0);
            progress.answered = true;
            match rest_action(progress.reading, progress.expects, progress.incoming.size_hint().exact()) {
                RestAction::Nothing => RestAction::Nothing,
                found => {
                    let action = if closes { RestAction::Close } else { found };
                    progress.guard.body_unread(action == RestAction::Close);
                    action
                }
            }
        };
        if action == RestAction::Drain {
            // hyper reads a body only while something polls it, and gives the connection up when nothing does.
            tokio::spawn(tokio::time::timeout(UNREAD_TIME, self.drain()));
        }
        action
    }

    async fn drain(self) {
        while std::future::poll_fn(|cx| lock(&self.0).poll_frame(cx)).await.is_some_and(|frame| frame.is_ok()) {}
    }
}

// === impl Progress ===

impl Progress {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if self.reading == Reading::Untouched {
            self.reading = Reading::Begun;
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Err(_)) => self.reading = Reading::Broken,
            Some(Ok(_)) if !self.incoming.is_end_stream() => {}
            _ => {
                self.reading = Reading::Ended;
                if self.answered {
                    self.guard.body_drained();
                } else {
                    self.guard.body_received();
                }
            }
        }
        Poll::Ready(frame)
    }
}

// === impl RequestBody ===

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        lock(&self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_rest_is_drained_and_a_large_or_endless_one_closes() {
        for reading in [Reading::Untouched, Reading::Begun] {
            assert_eq!(rest_action(reading, false, Some(10)), RestAction::Drain);
            assert_eq!(rest_action(reading, false, Some(UNREAD_BYTES_MAX)), RestAction::Drain);
            assert_eq!(rest_action(reading, false, Some(UNREAD_BYTES_MAX + 1)), RestAction::Close);
            assert_eq!(rest_action(reading, false, None), RestAction::Close);
        }
        for expects in [false, true] {
            assert_eq!(rest_action(Reading::Ended, expects, Some(0)), RestAction::Nothing);
            assert_eq!(rest_action(Reading::Ended, expects, None), RestAction::Nothing);
            assert_eq!(rest_action(Reading::Broken, expects, Some(10)), RestAction::Close);
        }
    }

    #[test]
    fn without_a_100_continue_the_connection_closes() {
        assert_eq!(rest_action(Reading::Untouched, true, Some(10)), RestAction::Close);
        assert_eq!(rest_action(Reading::Begun, true, Some(10)), RestAction::Drain);
    }
}
