//! The route to one peer: sends frames in order, dials anew after a connection breaks, and reports the outcome of each
//! frame as an event. It never makes its owner wait: work that cannot be done at once goes on while the owner waits for
//! [`Route::next`].

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use schema::frame::Frame;
use tracing::warn;

use crate::limits::STAGE_QUEUE_MAX;
use crate::link::limits::{CLOSED_AT_ONCE_MAX, CONNECT_WAIT_MAX};
use crate::link::{ClusterKey, LinkError, Outbound, Unreachable, UnreachableKind};

/// Pause before a connection that was closed at once is dialled again. The system of a process that is just ending
/// still accepts connections and closes them. A moment later it refuses them, which proves that the process is gone.
const ENDING_PAUSE: Duration = Duration::from_millis(10);
/// Number of such dials: a process takes the longer to end, the more memory it has.
const ENDING_TRIES: usize = 5;

/// The outcome of a frame, or the end of a connection.
#[derive(Debug)]
pub(crate) enum RouteEvent {
    /// The link took a frame with `bytes` of activations.
    Sent { frame: Frame, bytes: usize, waited: Duration, round_trip: Option<Duration> },
    /// A frame is lost.
    Unsent {
        frame: Frame,
        endpoint: String,
        bytes: usize,
        waited: Duration,
        cause: String,
        /// Set if the error proves that the peer cannot be reached.
        found: Option<Unreachable>,
    },
    /// The connection ended, and the frames last sent may be lost. `failed` is the cause if a new connection failed in
    /// a way that proves nothing.
    Broke { endpoint: String, failed: Option<String> },
    /// The connection ended, and the peer cannot be reached any more.
    Gone(Unreachable),
}

/// A frame that waits to be sent.
struct Parcel {
    endpoint: String,
    frame: Frame,
    activations: Bytes,
    queued: Instant,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The work in progress on a route.
enum Work {
    /// `parcel` is the frame that waits for the connection. `None` if the dial only checks that the peer is gone.
    Dial { dial: Boxed<Result<Outbound, LinkError>>, endpoint: String, parcel: Option<Parcel> },
    /// `fresh` is true if the connection was made for this frame, so that its failure is that of the frame.
    Send { send: Boxed<(Outbound, Parcel, Result<(), LinkError>)>, fresh: bool },
}

enum Worked {
    Dialled(Result<Outbound, LinkError>, String, Option<Parcel>),
    Sent(Outbound, Parcel, Result<(), LinkError>, bool),
}

/// At most one connection, to the endpoint of the newest frame.
pub(crate) struct Route {
    key: Option<ClusterKey>,
    /// True if a connection that ends is dialled again at once, to find out whether the peer is gone.
    redials: bool,
    link: Option<Outbound>,
    work: Option<Work>,
    queue: VecDeque<Parcel>,
    events: VecDeque<RouteEvent>,
    /// The fastest round trip of the connections to an endpoint: slower ones had to wait for something else.
    round_trip: Option<(String, Duration)>,
    /// The endpoint that did not answer last, and the moment that was found.
    silent: Option<(String, Instant)>,
    /// The endpoint that closes every connection at once, and the moment of the first.
    closed_at_once: Option<(String, Instant)>,
}

// === impl Route ===

impl Route {
    /// A route that finds out at once whether a peer whose connection ended is gone.
    pub(crate) fn redialling(key: Option<ClusterKey>) -> Self {
        Self { redials: true, ..Self::new(key) }
    }

    /// A route that dials again only for the next frame.
    pub(crate) fn new(key: Option<ClusterKey>) -> Self {
        Self {
            key,
            redials: false,
            link: None,
            work: None,
            queue: VecDeque::new(),
            events: VecDeque::new(),
            round_trip: None,
            silent: None,
            closed_at_once: None,
        }
    }

    /// Forgets the connection and all frames that wait: they are of a pipeline that is gone.
    pub(crate) fn reset(&mut self) {
        (self.link, self.work) = (None, None);
        self.queue.clear();
        self.events.clear();
    }

    /// Sends a frame to `endpoint` after those that wait. At most [`STAGE_QUEUE_MAX`] wait. One more is unsent at once.
    pub(crate) fn send(&mut self, endpoint: String, frame: Frame, activations: Bytes) {
        let parcel = Parcel { endpoint, frame, activations, queued: Instant::now() };
        if self.queue.len() >= STAGE_QUEUE_MAX {
            return self.fail(parcel, "too many frames wait for the connection".to_owned(), None);
        }
        self.queue.push_back(parcel);
        self.advance();
    }

    /// An event that has happened already.
    pub(crate) fn take_event(&mut self) -> Option<RouteEvent> {
        self.events.pop_front()
    }

    /// Waits for the next event. Waits for ever if there is neither work nor a connection. Cancel-safe.
    pub(crate) async fn next(&mut self) -> RouteEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if let Some(work) = &mut self.work {
                let worked = work.done().await;
                self.work = None;
                self.finish(worked);
                self.advance();
            } else if let Some(link) = &mut self.link {
                let error = link.lost().await;
                let endpoint = link.endpoint().to_owned();
                warn!(endpoint, %error, "the link broke");
                self.link = None;
                if self.redials {
                    self.dial(endpoint, None);
                } else {
                    self.events.push_back(RouteEvent::Broke { endpoint, failed: None });
                }
            } else {
                return std::future::pending().await;
            }
        }
    }

    /// Goes on with the work as far as that needs no waiting.
    fn advance(&mut self) {
        loop {
            if self.work.is_none() {
                let Some(parcel) = self.queue.pop_front() else { return };
                match self.link.take().filter(|link| link.endpoint() == parcel.endpoint) {
                    Some(link) => self.work = Some(Work::send(link, parcel, false)),
                    None => self.dial(parcel.endpoint.clone(), Some(parcel)),
                }
            }
            let Some(work) = &mut self.work else { continue };
            let Some(worked) = work.done().now_or_never() else { return };
            self.work = None;
            self.finish(worked);
        }
    }

    /// Begins to connect anew, unless the peer did not answer less than [`CONNECT_WAIT_MAX`] ago: a further wait would
    /// hold up the frames that follow.
    fn dial(&mut self, endpoint: String, parcel: Option<Parcel>) {
        self.link = None;
        if let Some((silent, found)) = &self.silent
            && *silent == endpoint
            && found.elapsed() < CONNECT_WAIT_MAX
        {
            let error = LinkError::Silent { endpoint: endpoint.clone(), waited: CONNECT_WAIT_MAX };
            return self.finish(Worked::Dialled(Err(error), endpoint, parcel));
        }
        let dial = Box::pin(dial(endpoint.clone(), self.key.clone()));
        self.work = Some(Work::Dial { dial, endpoint, parcel });
    }

    fn finish(&mut self, worked: Worked) {
        match worked {
            Worked::Sent(link, parcel, Ok(()), _) => {
                self.link = Some(link);
                let Parcel { frame, activations, queued, .. } = parcel;
                let (bytes, round_trip) = (activations.len(), self.round_trip());
                self.events.push_back(RouteEvent::Sent { frame, bytes, waited: queued.elapsed(), round_trip });
            }
            // A peer that lives and takes nothing would take nothing over another connection either, and the messages
            // in the queue would remain too.
            Worked::Sent(link, parcel, Err(error @ LinkError::Stalled { .. }), _) => {
                self.link = Some(link);
                self.unsent(parcel, &error);
            }
            Worked::Sent(_, parcel, Err(error), true) => self.unsent(parcel, &error),
            Worked::Sent(_, parcel, Err(error), false) => {
                warn!(endpoint = parcel.endpoint, %error, "the link broke; connecting anew");
                self.dial(parcel.endpoint.clone(), Some(parcel));
            }
            Worked::Dialled(answer, endpoint, parcel) => match (self.record_dial(&endpoint, answer), parcel) {
                (Ok(link), Some(parcel)) => self.work = Some(Work::send(link, parcel, true)),
                (Ok(link), None) => {
                    self.link = Some(link);
                    self.events.push_back(RouteEvent::Broke { endpoint, failed: None });
                }
                (Err(error), Some(parcel)) => self.unsent(parcel, &error),
                (Err(error), None) => self.events.push_back(match Unreachable::by(&endpoint, &error) {
                    Some(found) => RouteEvent::Gone(found),
                    None => RouteEvent::Broke { endpoint, failed: Some(error.chain_text()) },
                }),
            },
        }
    }

    fn unsent(&mut self, parcel: Parcel, error: &LinkError) {
        let found = Unreachable::by(&parcel.endpoint, error);
        self.fail(parcel, error.chain_text(), found);
    }

    fn fail(&mut self, parcel: Parcel, cause: String, found: Option<Unreachable>) {
        let Parcel { endpoint, frame, activations, queued } = parcel;
        let (bytes, waited) = (activations.len(), queued.elapsed());
        self.events.push_back(RouteEvent::Unsent { frame, endpoint, bytes, waited, cause, found });
    }

    /// Learns from the outcome of a dial.
    fn record_dial(&mut self, endpoint: &str, answer: Result<Outbound, LinkError>) -> Result<Outbound, LinkError> {
        let is_silent = answer.as_ref().err().and_then(LinkError::unreachable_kind) == Some(UnreachableKind::Silence);
        if is_silent {
            // The moment of the first of several in a row: the next dial must not wait for ever.
            let known =
                self.silent.take().filter(|(known, found)| known == endpoint && found.elapsed() < CONNECT_WAIT_MAX);
            self.silent = known.or_else(|| Some((endpoint.to_owned(), Instant::now())));
        } else {
            self.silent = None;
        }
        let link = answer.map_err(|error| self.check_closed_at_once(endpoint, error))?;
        self.closed_at_once = None;
        let known = self.round_trip.as_ref().filter(|(known, _)| known == endpoint).map(|(_, fastest)| *fastest);
        let fastest = known.map_or(link.round_trip(), |known| known.min(link.round_trip()));
        self.round_trip = Some((endpoint.to_owned(), fastest));
        Ok(link)
    }

    /// A connection that is closed at once may be the end of a process, or a network that recovers. If that lasts for
    /// [`CLOSED_AT_ONCE_MAX`], the peer does not accept this process.
    fn check_closed_at_once(&mut self, endpoint: &str, error: LinkError) -> LinkError {
        if !error.was_closed_at_once() {
            self.closed_at_once = None;
            return error;
        }
        let since = self
            .closed_at_once
            .take()
            .filter(|(known, _)| known == endpoint)
            .map_or(Instant::now(), |(_, since)| since);
        let lasted = since.elapsed();
        self.closed_at_once = Some((endpoint.to_owned(), since));
        match lasted >= CLOSED_AT_ONCE_MAX {
            true => LinkError::ClosedAtOnce { endpoint: endpoint.to_owned(), lasted, cause: Box::new(error) },
            false => error,
        }
    }

    fn round_trip(&self) -> Option<Duration> {
        self.round_trip.as_ref().map(|(_, fastest)| *fastest)
    }
}

/// Connects to `endpoint`. Dials again if the peer seems to be just ending.
async fn dial(endpoint: String, key: Option<ClusterKey>) -> Result<Outbound, LinkError> {
    let mut answer = Outbound::connect(&endpoint, key.as_ref()).await;
    for _ in 0..ENDING_TRIES {
        if !answer.as_ref().is_err_and(LinkError::was_closed_at_once) {
            break;
        }
        tokio::time::sleep(ENDING_PAUSE).await;
        answer = Outbound::connect(&endpoint, key.as_ref()).await;
    }
    answer
}

// === impl Work ===

impl Work {
    fn send(mut link: Outbound, parcel: Parcel, fresh: bool) -> Self {
        let send = async move {
            let outcome = link.send(&parcel.frame, parcel.activations.clone()).await;
            (link, parcel, outcome)
        };
        Self::Send { send: Box::pin(send), fresh }
    }

    /// Waits until it is done. Cancel-safe. Must not be called again afterwards.
    async fn done(&mut self) -> Worked {
        match self {
            Self::Dial { dial, endpoint, parcel } => {
                let answer = dial.await;
                Worked::Dialled(answer, std::mem::take(endpoint), parcel.take())
            }
            Self::Send { send, fresh } => {
                let (link, parcel, outcome) = send.await;
                Worked::Sent(link, parcel, outcome, *fresh)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    fn tokens() -> Frame {
        use schema::frame::Tokens;
        use schema::{Epoch, Generation, Step};
        let (generation, epoch, step) = (Generation(1), Epoch(1), Step(0));
        Frame::Tokens(Tokens {
            generation,
            epoch,
            step,
            chosen: Vec::new(),
            spent: Vec::new(),
            hidden_states: Vec::new(),
        })
    }

    async fn unreachable_kind(route: &mut Route, endpoint: &str) -> Option<UnreachableKind> {
        route.send(endpoint.to_owned(), tokens(), Bytes::new());
        match route.next().await {
            RouteEvent::Unsent { found, .. } => found.map(|found| found.kind),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_process_that_is_just_ending_is_dialled_until_its_system_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let ending = tokio::spawn(async move {
            for _ in 0..3 {
                drop(listener.accept().await);
            }
        });
        let mut route = Route::new(None);
        let found = unreachable_kind(&mut route, &format!("ipc://{}", path.display())).await;
        assert_eq!(found, Some(UnreachableKind::Refused));
        ending.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_closes_every_connection_at_once_counts_as_barred_when_that_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let closing = tokio::spawn(async move {
            loop {
                drop(listener.accept().await);
            }
        });
        let (mut route, endpoint) = (Route::new(None), format!("ipc://{}", path.display()));
        let started = Instant::now();
        let found = loop {
            match unreachable_kind(&mut route, &endpoint).await {
                None => assert!(started.elapsed() < 3 * CLOSED_AT_ONCE_MAX),
                kind => break kind,
            }
        };
        assert!(found == Some(UnreachableKind::Barred) && started.elapsed() >= CLOSED_AT_ONCE_MAX, "{found:?}");
        closing.abort();
    }
}
