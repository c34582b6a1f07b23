//! The route to one peer: sends frames in order, dials anew after a connection breaks, goes over to another address of
//! the peer when that is better, and reports the outcome of each frame as an event. It never makes its owner wait: work
//! that cannot be done at once goes on while the owner waits for [`Route::next`].

mod dial;
mod peer_addresses;
mod upkeep;

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use schema::frame::Frame;
use schema::record::LinkReport;
use tracing::{info, warn};

use self::dial::Dialled;
pub(crate) use self::peer_addresses::PeerAddresses;
use self::upkeep::{Replacement, Upkeep};
use crate::limits::STAGE_QUEUE_MAX;
use crate::link::limits::{CLOSED_AT_ONCE_MAX, CONNECT_WAIT_MAX, MOVE_PAUSE, MOVE_WAIT_MAX, OLD_LINK_KEPT};
use crate::link::{ClusterKey, LinkError, Outbound, Unreachable, UnreachableKind};

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
    Dial { dial: Boxed<Dialled>, endpoint: String, parcel: Option<Parcel> },
    /// `fresh` is true if the connection was made for this frame, so that its failure is that of the frame.
    Send { send: Boxed<(Outbound, Parcel, Result<(), LinkError>)>, fresh: bool },
}

enum Worked {
    Dialled(Dialled, String, Option<Parcel>),
    Sent(Outbound, Parcel, Result<(), LinkError>, bool),
}

/// The move to a better connection. Until `until`, nothing is sent, so that no frame overtakes the last one.
struct Move {
    link: Outbound,
    until: Instant,
    give_up: Instant,
}

/// At most one connection, to the peer of the newest frame.
pub(crate) struct Route {
    /// The endpoint in the peer's record. The connection may be to another of its addresses.
    peer: String,
    upkeep: Upkeep,
    /// True if a connection that ends is dialled again at once, to find out whether the peer is gone.
    redials: bool,
    link: Option<Outbound>,
    moving: Option<Move>,
    work: Option<Work>,
    queue: VecDeque<Parcel>,
    events: VecDeque<RouteEvent>,
    /// The endpoint that did not answer last, and the moment that was found.
    silent: Option<(String, Instant)>,
    /// The endpoint that closes every connection at once, and the moment of the first.
    closed_at_once: Option<(String, Instant)>,
}

// === impl Route ===

impl Route {
    /// A route that finds out at once whether a peer whose connection ended is gone.
    pub(crate) fn redialling(key: Option<ClusterKey>, peers: PeerAddresses) -> Self {
        Self { redials: true, ..Self::new(key, peers) }
    }

    /// A route that dials again only for the next frame.
    pub(crate) fn new(key: Option<ClusterKey>, peers: PeerAddresses) -> Self {
        Self {
            peer: String::new(),
            upkeep: Upkeep::new(key, peers),
            redials: false,
            link: None,
            moving: None,
            work: None,
            queue: VecDeque::new(),
            events: VecDeque::new(),
            silent: None,
            closed_at_once: None,
        }
    }

    /// Forgets the connection and all frames that wait: they are of a pipeline that is gone.
    pub(crate) fn reset(&mut self) {
        (self.link, self.moving, self.work) = (None, None, None);
        self.upkeep.reset();
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

    /// The addresses of the peer, if it is on another machine.
    pub(crate) fn links(&mut self) -> Vec<LinkReport> {
        self.upkeep.report(self.link.is_some() || self.work.is_some())
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
                let (silence, moved_at) = (link.silence(), self.moving.as_ref().map(|moving| moving.until));
                let (mut error, mut replacement) = (None, None);
                tokio::select! {
                    biased;
                    lost = link.lost() => error = Some(lost),
                    found = self.upkeep.next(silence), if moved_at.is_none() => replacement = Some(found),
                    () = sleep_until(moved_at) => {}
                }
                match (error, replacement) {
                    (Some(error), _) => self.lost(&error),
                    (None, Some(replacement)) => self.replace(replacement),
                    (None, None) => self.finish_move(),
                }
            } else {
                return std::future::pending().await;
            }
        }
    }

    /// The connection has ended.
    fn lost(&mut self, error: &LinkError) {
        let endpoint = self.peer.clone();
        let address = self.link.take().map_or_else(|| endpoint.clone(), |link| link.endpoint().to_owned());
        warn!(endpoint, address, %error, "the link broke");
        if !error.was_closed_at_once() {
            self.upkeep.failed(&address);
        }
        if let Some(Move { link, .. }) = self.moving.take() {
            self.upkeep.uses(&link);
            self.link = Some(link);
            self.events.push_back(RouteEvent::Broke { endpoint, failed: None });
            self.advance();
        } else if self.redials {
            self.dial(endpoint, None);
        } else {
            self.events.push_back(RouteEvent::Broke { endpoint, failed: None });
        }
    }

    /// Another connection takes the place of this one: at once if nothing comes over this one, or else when this one
    /// has been quiet for a moment.
    fn replace(&mut self, replacement: Replacement) {
        let Some(before) = &self.link else { return };
        let (endpoint, from) = (self.peer.clone(), before.endpoint().to_owned());
        match replacement {
            Replacement::Rescue(link) => {
                warn!(endpoint, from, to = link.endpoint(), "nothing comes over the link: going on at another address");
                self.upkeep.failed(&from);
                self.upkeep.uses(&link);
                self.link = Some(link);
                self.events.push_back(RouteEvent::Broke { endpoint, failed: None });
            }
            Replacement::Better(link) => {
                let now = Instant::now();
                let pause = MOVE_PAUSE + 2 * self.round_trip().unwrap_or_default();
                self.moving = Some(Move { link, until: now + pause, give_up: now + MOVE_WAIT_MAX });
            }
        }
    }

    /// Goes over to the better connection if all that was sent has left the queue of this one.
    fn finish_move(&mut self) {
        let (Some(Move { link, until, give_up }), Some(before)) = (self.moving.take(), &mut self.link) else { return };
        let now = Instant::now();
        if before.is_flushed() {
            let (from, to) = (before.endpoint().to_owned(), link.endpoint().to_owned());
            info!(endpoint = self.peer, from, to, "the link has moved to a better address");
            self.upkeep.moves(&link);
            if let Some(before) = self.link.replace(link) {
                keep_a_while(before);
            }
        } else if now < give_up {
            self.moving = Some(Move { link, until: until.max(now) + MOVE_PAUSE, give_up });
            return;
        }
        self.advance();
    }

    /// Goes on with the work as far as that needs no waiting.
    fn advance(&mut self) {
        while self.moving.is_none() {
            if self.work.is_none() {
                let Some(parcel) = self.queue.pop_front() else { return };
                match self.link.take().filter(|_| self.peer == parcel.endpoint) {
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
        (self.link, self.moving) = (None, None);
        self.peer.clone_from(&endpoint);
        if let Some((silent, found)) = &self.silent
            && *silent == endpoint
            && found.elapsed() < CONNECT_WAIT_MAX
        {
            let error = LinkError::Silent { endpoint: endpoint.clone(), waited: CONNECT_WAIT_MAX };
            let dialled = Dialled { link: Err(error), failed: Vec::new() };
            return self.finish(Worked::Dialled(dialled, endpoint, parcel));
        }
        let dial = self.upkeep.dial(&endpoint);
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
            Worked::Dialled(dialled, endpoint, parcel) => match (self.record_dial(&endpoint, dialled), parcel) {
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
    fn record_dial(&mut self, endpoint: &str, dialled: Dialled) -> Result<Outbound, LinkError> {
        let answer = self.upkeep.dialled(dialled);
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
        self.upkeep.round_trip()
    }
}

/// Keeps a connection open for what the systems at both ends still hold of it.
fn keep_a_while(link: Outbound) {
    tokio::spawn(async move {
        tokio::time::sleep(OLD_LINK_KEPT).await;
        drop(link);
    });
}

/// Waits until `at`, for ever if it is `None`.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
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
        let mut route = Route::new(None, PeerAddresses::default());
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
        let (mut route, endpoint) = (Route::new(None, PeerAddresses::default()), format!("ipc://{}", path.display()));
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
