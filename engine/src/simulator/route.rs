//! A simulated process's routes: as the real ones they dial anew, keep frames while they dial, and report what became of each.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use schema::frame::Frame;

use super::network::{Way, unreachable};
use super::surroundings::{Happening, Moment, Party, Surroundings, micros};
use crate::link::Absence;
use crate::link::limits::CONNECT_WAIT_MAX;
use crate::route::RouteEvent;

/// A frame that waits to be sent.
struct Waiting {
    endpoint: String,
    frame: Frame,
    activations: Bytes,
}

/// A dial that has no answer yet.
pub(super) struct Dial {
    number: u64,
    endpoint: String,
    /// True if it only finds out whether the peer is gone.
    is_redial: bool,
    waiting: VecDeque<Waiting>,
}

impl Surroundings {
    /// Sends a frame; what became of it, and of those that waited, as far as that is known at once.
    pub(super) fn route(
        &mut self,
        (from, way): (Party, Way),
        endpoint: &str,
        frame: Frame,
        activations: Bytes,
    ) -> Vec<RouteEvent> {
        let waiting = Waiting { endpoint: endpoint.to_owned(), frame, activations };
        if let Some(dial) = self.network.dials.get_mut(&(from, way)) {
            dial.waiting.push_back(waiting);
            return Vec::new();
        }
        self.route_on((from, way), VecDeque::from([waiting]))
    }

    fn route_on(&mut self, (from, way): (Party, Way), mut frames: VecDeque<Waiting>) -> Vec<RouteEvent> {
        let mut events = Vec::new();
        while let Some(next) = frames.pop_front() {
            let Waiting { endpoint, frame, activations } = next;
            let known = self.network.silent.get(&(from, way));
            let is_known_silent =
                known.is_some_and(|(silent, found)| *silent == endpoint && self.now < found + micros(CONNECT_WAIT_MAX));
            let sent = match is_known_silent && !self.has_link(from, way, &endpoint) {
                true => Err(Absence::Silence),
                false => self.send(from, way, &endpoint, &frame, activations.clone()),
            };
            match sent {
                Ok(()) => events.push(sent_event(frame, activations.len())),
                Err(Absence::Silence) if !is_known_silent => {
                    frames.push_front(Waiting { endpoint: endpoint.clone(), frame, activations });
                    self.dial((from, way), endpoint, false, frames);
                    return events;
                }
                Err(absence) => events.push(unsent(endpoint, frame, activations.len(), absence)),
            }
        }
        events
    }

    /// A connection has ended; what is known at once of the peer.
    pub(super) fn route_ended(&mut self, (from, way): (Party, Way), link: u64) -> Vec<RouteEvent> {
        let Some(endpoint) = self.network.leads(from, way, link) else { return Vec::new() };
        self.network.close(from, way);
        if let Way::Gateway(_) = way {
            return vec![RouteEvent::Broke { endpoint, failed: None }];
        }
        match self.connect(from, way, &endpoint) {
            Ok(_) => vec![RouteEvent::Broke { endpoint, failed: None }],
            Err(Absence::Silence) => {
                self.dial((from, way), endpoint, true, VecDeque::new());
                Vec::new()
            }
            Err(absence) => vec![RouteEvent::Gone(unreachable(&endpoint, absence))],
        }
    }

    /// A dial comes to its end, unless the route was reset meanwhile.
    pub(super) fn dialled(&mut self, (from, way): (Party, Way), number: u64) -> Vec<RouteEvent> {
        if self.network.dials.get(&(from, way)).is_none_or(|dial| dial.number != number) {
            return Vec::new();
        }
        let Some(Dial { endpoint, is_redial, mut waiting, .. }) = self.network.dials.remove(&(from, way)) else {
            return Vec::new();
        };
        let mut events = Vec::new();
        let answer = self.connect(from, way, &endpoint).map(drop);
        if answer == Err(Absence::Silence) {
            self.network.silent.insert((from, way), (endpoint.clone(), self.now));
        }
        match (is_redial, answer) {
            (true, Ok(())) => events.push(RouteEvent::Broke { endpoint, failed: None }),
            (true, Err(absence)) => events.push(RouteEvent::Gone(unreachable(&endpoint, absence))),
            (false, Ok(())) => {}
            (false, Err(absence)) => {
                if let Some(Waiting { endpoint, frame, activations }) = waiting.pop_front() {
                    events.push(unsent(endpoint, frame, activations.len(), absence));
                }
            }
        }
        events.extend(self.route_on((from, way), waiting));
        events
    }

    fn dial(&mut self, (from, way): (Party, Way), endpoint: String, is_redial: bool, waiting: VecDeque<Waiting>) {
        self.network.dialled += 1;
        let number = self.network.dialled;
        self.network.dials.insert((from, way), Dial { number, endpoint, is_redial, waiting });
        self.happens(micros(CONNECT_WAIT_MAX) as Moment, from, Happening::Dialled { way, number });
    }
}

fn sent_event(frame: Frame, bytes: usize) -> RouteEvent {
    RouteEvent::Sent { frame, bytes, waited: Duration::ZERO, round_trip: None }
}

fn unsent(endpoint: String, frame: Frame, bytes: usize, absence: Absence) -> RouteEvent {
    let found = unreachable(&endpoint, absence);
    let (waited, cause) = (Duration::ZERO, found.cause.clone());
    RouteEvent::Unsent { frame, endpoint, bytes, waited, cause, found: Some(found) }
}
