//! One stream of `GET /distributed/events`.

use std::collections::VecDeque;

use http::header::{ACCEPT, HeaderName};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use schema::ClusterName;
use tokio::time::Instant;

use super::limits::{OPEN_TIMEOUT, SILENCE_MAX, STATE_BYTES_MAX};
use crate::client::{Connector, Endpoint, Events, Failure, ServerEvent, Target, reason, send};
use crate::settings::ClientSettings;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// An open stream.
pub(super) struct Subscription {
    body: Incoming,
    events: Events,
    /// Events of the last frame that were not taken yet.
    read: VecDeque<ServerEvent>,
    /// The time of the last byte.
    heard: Instant,
}

// === impl Subscription ===

impl Subscription {
    /// Opens a stream about `cluster` at the gateway at `url`, after the event `last` if the gateway still knows it.
    pub(super) async fn open(
        url: &str,
        cluster: &ClusterName,
        client: &ClientSettings,
        last: Option<&str>,
    ) -> Result<Self, Failure> {
        let endpoint: Endpoint = url.parse().map_err(|reason| Failure::Connect { reason })?;
        let connector = Connector::new(endpoint.scheme(), &client.trusted);
        let connector = connector.map_err(|error| Failure::Connect { reason: error.to_string() })?;
        let page = endpoint.page(&format!("distributed/events?cluster={cluster}"));
        let mut head = http::Request::get(page).header(ACCEPT, "text/event-stream");
        if let Some(last) = last {
            head = head.header(LAST_EVENT_ID, last);
        }
        let target = Target { endpoint, api_key: client.api_key.clone() };
        let opening = tokio::time::timeout(OPEN_TIMEOUT, send(&target, &connector, head, String::new()));
        let body = opening.await.unwrap_or(Err(Failure::Timeout { seconds: OPEN_TIMEOUT.as_secs() }))?;
        let events = Events::with_bytes_max(STATE_BYTES_MAX);
        Ok(Self { body, events, read: VecDeque::new(), heard: Instant::now() })
    }

    /// The next event. Cancel-safe.
    ///
    /// # Errors
    /// [`Failure`] once the stream is over: a gateway ends it only when it stops.
    pub(super) async fn next(&mut self) -> Result<ServerEvent, Failure> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Ok(event);
            }
            let silent = Failure::CutOff { reason: format!("nothing came for {} s", SILENCE_MAX.as_secs()) };
            let frame = tokio::time::timeout_at(self.heard + SILENCE_MAX, self.body.frame()).await;
            let ended = Failure::CutOff { reason: "the gateway stops".to_owned() };
            let frame = frame.map_err(|_| silent)?.ok_or(ended)?;
            let frame = frame.map_err(|error| Failure::CutOff { reason: reason(&error) })?;
            self.heard = Instant::now();
            let Some(bytes) = frame.data_ref() else { continue };
            let events = self.events.push(bytes);
            self.read.extend(events.map_err(|error| Failure::InvalidResponse { reason: error.to_string() })?);
        }
    }
}
