//! The upkeep of a connection to another machine: tries the peer's addresses now and then, and finds another connection
//! when nothing more comes over this one, or when another address is better.

use std::future::pending;
use std::time::{Duration, Instant};

use schema::record::LinkReport;
use tokio::time::sleep_until;
use tracing::debug;

use super::Boxed;
use super::dial::{Dialled, dial};
use super::peer_addresses::PeerAddresses;
use crate::link::limits::{DOUBT_AFTER, DOUBT_AGAIN};
use crate::link::{ClusterKey, LinkError, Measured, Outbound, Paths, Silence};

/// A connection that is to take the place of the one in use.
pub(super) enum Replacement {
    /// Nothing comes over the one in use, and the peer answers over this one.
    Rescue(Outbound),
    /// This one is better.
    Better(Outbound),
}

/// The addresses of one peer, and what is tried at them beside the connection in use.
pub(super) struct Upkeep {
    key: Option<ClusterKey>,
    peers: PeerAddresses,
    paths: Option<Paths>,
    attempt: Option<(String, Boxed<Attempted>)>,
    rescue: Option<Boxed<Dialled>>,
    /// The moment before which no further rescue is tried.
    rescue_at: Option<Instant>,
}

/// The outcome of what was tried at one address.
enum Attempted {
    Probed(Result<Measured, LinkError>),
    Connected(Result<Outbound, LinkError>),
}

// === impl Upkeep ===

impl Upkeep {
    pub(super) fn new(key: Option<ClusterKey>, peers: PeerAddresses) -> Self {
        Self { key, peers, paths: None, attempt: None, rescue: None, rescue_at: None }
    }

    /// Gives up what is under way.
    pub(super) fn reset(&mut self) {
        (self.attempt, self.rescue, self.rescue_at) = (None, None, None);
    }

    /// Dials `peer` at the addresses that it advertises now.
    pub(super) fn dial(&mut self, peer: &str) -> Boxed<Dialled> {
        self.reset();
        self.follow(peer);
        let addresses = self.paths.as_ref().map(Paths::to_dial).unwrap_or_default();
        Box::pin(dial(peer.to_owned(), addresses, self.key.clone()))
    }

    /// Learns from a dial.
    pub(super) fn dialled(&mut self, dialled: Dialled) -> Result<Outbound, LinkError> {
        let now = Instant::now();
        let Dialled { link, failed } = dialled;
        if let Some(paths) = &mut self.paths {
            failed.iter().for_each(|address| paths.failed(address, now));
            if let Ok(link) = &link {
                paths.answered(link.endpoint(), link.round_trip(), now);
                paths.uses(link.endpoint());
            }
        }
        link
    }

    /// Frames go over `link` from now on.
    pub(super) fn uses(&mut self, link: &Outbound) {
        if let Some(paths) = &mut self.paths {
            paths.uses(link.endpoint());
        }
    }

    /// The same, because it is the better one.
    pub(super) fn moves(&mut self, link: &Outbound) {
        if let Some(paths) = &mut self.paths {
            paths.moves(link.endpoint(), Instant::now());
        }
    }

    /// The connection to `address` is of no use any more.
    pub(super) fn failed(&mut self, address: &str) {
        if let Some(paths) = &mut self.paths {
            paths.failed(address, Instant::now());
        }
    }

    /// The least round trip of late to the address in use.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.paths.as_ref()?.round_trip()
    }

    /// The peer's addresses, if it is on another machine. `is_open` is true while there is a connection.
    pub(super) fn report(&mut self, is_open: bool) -> Vec<LinkReport> {
        let paths = self.paths.as_mut().filter(|paths| is_elsewhere(paths.peer()));
        paths.map(|paths| paths.report(is_open)).unwrap_or_default()
    }

    /// Waits until another connection is to take the place of the one that was silent as `silence` says. Waits for ever
    /// within a machine. Cancel-safe.
    pub(super) async fn next(&mut self, silence: Option<Silence>) -> Replacement {
        let Some(silence) = silence else { return pending().await };
        loop {
            let now = Instant::now();
            let rescue_at = self.begin_rescue(&silence, now);
            let attempt_at = self.begin_attempt(now);
            let wake = [rescue_at, attempt_at].into_iter().flatten().min();
            let (mut dialled, mut attempted) = (None, None);
            tokio::select! {
                biased;
                done = outcome(&mut self.rescue) => dialled = Some(done),
                done = attempt_outcome(&mut self.attempt) => attempted = Some(done),
                () = sleep(wake) => {}
            }
            let found = match (dialled, attempted) {
                (Some(dialled), _) => self.finish_rescue(dialled, &silence),
                (None, Some((address, attempted))) => self.finish_attempt(&address, attempted),
                (None, None) => None,
            };
            if let Some(replacement) = found {
                return replacement;
            }
        }
    }

    /// Follows what `peer` advertises.
    fn follow(&mut self, peer: &str) {
        let (addresses, now) = (self.peers.of(peer), Instant::now());
        match &mut self.paths {
            Some(paths) if paths.peer() == peer => paths.follow(&addresses, now),
            paths => *paths = Some(Paths::new(peer, &addresses, now)),
        }
    }

    /// Begins to dial the other addresses if nothing has come for so long that the one in use is in doubt. Otherwise
    /// returns the moment at which that may be so.
    fn begin_rescue(&mut self, silence: &Silence, now: Instant) -> Option<Instant> {
        let paths = self.paths.as_ref().filter(|_| self.rescue.is_none())?;
        let others = paths.others();
        if others.is_empty() {
            return None;
        }
        let doubt_at = silence.since().into_std() + DOUBT_AFTER;
        let at = self.rescue_at.map_or(doubt_at, |again| again.max(doubt_at));
        if at > now {
            return Some(at);
        }
        self.rescue = Some(Box::pin(dial(paths.peer().to_owned(), others, self.key.clone())));
        None
    }

    fn finish_rescue(&mut self, dialled: Dialled, silence: &Silence) -> Option<Replacement> {
        let now = Instant::now();
        self.rescue_at = Some(now + DOUBT_AGAIN);
        let paths = self.paths.as_mut()?;
        dialled.failed.iter().for_each(|address| paths.failed(address, now));
        let link = dialled.link.ok()?;
        paths.answered(link.endpoint(), link.round_trip(), now);
        // A peer that was only slow has been heard by now.
        let is_silent = now.saturating_duration_since(silence.since().into_std()) >= DOUBT_AFTER;
        is_silent.then_some(Replacement::Rescue(link))
    }

    /// Begins to try the address that is due, or to connect to a better one. Otherwise returns the moment at which one
    /// is due.
    fn begin_attempt(&mut self, now: Instant) -> Option<Instant> {
        let paths = self.paths.as_ref().filter(|_| self.attempt.is_none())?;
        let due = paths.probe_at()?;
        if due > now && paths.to_move_to(now).is_none() {
            return Some(due);
        }
        let peer = self.paths.as_ref()?.peer().to_owned();
        self.follow(&peer);
        let paths = self.paths.as_ref()?;
        let key = self.key.clone();
        if let Some(address) = paths.to_move_to(now).cloned() {
            let endpoint = address.clone();
            let connect = async move { Attempted::Connected(Outbound::connect(&endpoint, key.as_ref()).await) };
            self.attempt = Some((address, Box::pin(connect)));
        } else if let Some(address) = paths.to_probe(now) {
            let (endpoint, with_burst) = (address.clone(), paths.is_burst_due(&address, now));
            let probe = async move { Attempted::Probed(Outbound::probe(&endpoint, key.as_ref(), with_burst).await) };
            self.attempt = Some((address, Box::pin(probe)));
        }
        None
    }

    fn finish_attempt(&mut self, address: &str, attempted: Attempted) -> Option<Replacement> {
        let (paths, now) = (self.paths.as_mut()?, Instant::now());
        let (round_trip, link) = match attempted {
            Attempted::Probed(Ok(Measured { round_trip, burst })) => {
                if let Some(burst) = burst {
                    let burst = burst.inspect_err(|error| debug!(address, %error, "a burst was not measured"));
                    paths.carried(address, burst.ok(), now);
                }
                (Ok(round_trip), None)
            }
            Attempted::Probed(Err(error)) => (Err(error), None),
            Attempted::Connected(Ok(link)) => (Ok(link.round_trip()), Some(link)),
            Attempted::Connected(Err(error)) => (Err(error), None),
        };
        match round_trip {
            Ok(round_trip) => paths.answered(address, round_trip, now),
            Err(error) => {
                debug!(address, error = error.chain_text(), "an address of the peer does not answer");
                paths.failed(address, now);
            }
        }
        link.map(Replacement::Better)
    }
}

/// True for the endpoint of a process that other machines reach.
fn is_elsewhere(endpoint: &str) -> bool {
    endpoint.starts_with("tcp:")
}

/// Waits for `work`, for ever if there is none. Cancel-safe.
async fn outcome<T>(work: &mut Option<Boxed<T>>) -> T {
    let Some(running) = work else { return pending().await };
    let done = running.await;
    *work = None;
    done
}

/// Waits for what is tried at an address, for ever if there is nothing. Cancel-safe.
async fn attempt_outcome(work: &mut Option<(String, Boxed<Attempted>)>) -> (String, Attempted) {
    let Some((address, running)) = work else { return pending().await };
    let attempted = running.await;
    let done = (std::mem::take(address), attempted);
    *work = None;
    done
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until.into()).await,
        None => pending().await,
    }
}
