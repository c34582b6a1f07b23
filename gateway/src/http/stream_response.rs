//! A response whose body is a stream that is not to be kept or collected on its way: events, or lines of JSON.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::Stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use warp::reply::{Reply, Response};

/// Streams `events`. Proxies are told not to collect them.
pub(crate) fn stream_response(
    events: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
    content_type: &'static str,
) -> Response {
    let mut response = warp::reply::stream(Shared(Mutex::new(Box::pin(events)))).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Makes a stream `Sync` that is only `Send`. `get_mut` needs no lock, so nothing ever waits for the mutex.
struct Shared<S>(Mutex<Pin<Box<S>>>);

impl<S: Stream> Stream for Shared<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll_next(cx)
    }
}
