//! `GET /distributed/events`: the stream of one subscriber.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::header::{HeaderMap, HeaderName};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::{debug, info};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::{Reply, Response};

use super::feed::{Newest, Reading};
use crate::http::app_state::AppState;
use crate::http::error::ApiError;
use crate::http::limits::LIVE_SUBSCRIBERS_MAX;
use crate::http::page::of_cluster;
use crate::http::served_model::ServedModel;
use crate::http::stream_response::stream_response;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Written first: the time after which a browser comes back, in milliseconds.
const RETRY: &[u8] = b"retry: 1000\n\n";
const BEHIND: &[u8] = b"event: behind\ndata: {}\n\n";
const PING: &[u8] = b": ping\n\n";

/// One subscriber.
struct Subscriber {
    state: Arc<ServedModel>,
    newest: watch::Receiver<Newest>,
    /// The number of the newest event in `waiting`, or of the last one that was taken from it.
    seen: u64,
    waiting: VecDeque<Bytes>,
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

/// The filter for the page over `state`.
pub(crate) fn filter(state: &Arc<AppState>) -> BoxedFilter<(Response,)> {
    warp::path!("distributed" / "events")
        .and(warp::get())
        .and(of_cluster(state))
        .and(warp::header::headers_cloned())
        .map(|model: Result<Arc<ServedModel>, ApiError>, headers: HeaderMap| {
            model.and_then(|model| open(model, &headers)).unwrap_or_else(Reply::into_response)
        })
        .boxed()
}

fn open(state: Arc<ServedModel>, headers: &HeaderMap) -> Result<Response, ApiError> {
    let Some(permit) = state.live.subscribe() else {
        let message = format!("{LIVE_SUBSCRIBERS_MAX} streams of events are open, and there may be no more.");
        return Err(ApiError::unavailable(message));
    };
    let newest = state.live.newest();
    let last = headers.get(LAST_EVENT_ID).and_then(|id| state.live.number(id.to_str().ok()?));
    let mut waiting = VecDeque::from([Bytes::from_static(RETRY)]);
    let missed = last.map(|last| state.live.after(last));
    let seen = match missed {
        Some(Reading::Next(events, seen)) => {
            waiting.extend(events);
            seen
        }
        Some(Reading::Behind) | None => {
            let (whole, seen) = state.live.whole_state(&state);
            waiting.push_back(whole);
            seen
        }
    };
    debug!(resumed = last.is_some(), seen, "a stream of events was opened");
    let subscriber = Subscriber { state, newest, seen, waiting, is_over: false, _permit: permit };
    let events = stream::unfold(subscriber, |mut subscriber| async {
        let bytes = subscriber.next().await?;
        Some((Ok::<_, Infallible>(bytes), subscriber))
    });
    Ok(stream_response(events, "text/event-stream"))
}

// === impl Subscriber ===

impl Subscriber {
    /// The next bytes for the client. `None` once the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Some(bytes);
            }
            if self.is_over {
                return None;
            }
            let seen = self.seen;
            let news = self.newest.wait_for(|newest| newest.is_closed || newest.event > seen);
            match tokio::time::timeout(self.state.settings.ping_period, news).await {
                Err(_) => return Some(Bytes::from_static(PING)),
                Ok(Err(_)) => return None,
                Ok(Ok(newest)) if newest.is_closed => return None,
                Ok(Ok(_)) => {}
            }
            match self.state.live.after(self.seen) {
                Reading::Next(events, newest) => {
                    self.waiting.extend(events);
                    self.seen = newest;
                }
                Reading::Behind => {
                    info!(seen, "a subscriber of events has read too slowly: its stream ends");
                    self.waiting.push_back(Bytes::from_static(BEHIND));
                    self.is_over = true;
                }
            }
        }
    }
}
