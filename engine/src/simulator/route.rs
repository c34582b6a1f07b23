//! A simulated process's routes: like the real ones they dial anew, keep frames while they dial, and report the outcome
//! of each frame.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use schema::frame::Frame;

use super::dial::{Dial, WaitingFrame};
use super::environment::Environment;
use super::event::ProcessEvent;
use super::network::Target;
use super::process_id::ProcessId;
use super::time::{Moment, micros};
use crate::link::limits::CONNECT_WAIT_MAX;
use crate::link::{Unreachable, UnreachableKind};
use crate::route::RouteEvent;

impl Environment {
    /// Sends a frame. Returns the outcomes that are known at once, of this frame and of those that waited.
    pub(super) fn route(
        &mut self,
        from: ProcessId,
        target: Target,
        endpoint: &str,
        frame: Frame,
        activations: Bytes,
    ) -> Vec<RouteEvent> {
        let waiting = WaitingFrame { endpoint: endpoint.to_owned(), frame, activations };
        if let Some(dial) = self.network.dials.get_mut(&(from, target)) {
            dial.waiting.push_back(waiting);
            return Vec::new();
        }
        self.route_on(from, target, VecDeque::from([waiting]))
    }

    fn route_on(&mut self, from: ProcessId, target: Target, mut frames: VecDeque<WaitingFrame>) -> Vec<RouteEvent> {
        let mut events = Vec::new();
        while let Some(next) = frames.pop_front() {
            let WaitingFrame { endpoint, frame, activations } = next;
            let known = self.network.silent.get(&(from, target));
            let is_known_silent =
                known.is_some_and(|(silent, found)| *silent == endpoint && self.now < found + micros(CONNECT_WAIT_MAX));
            let sent = match is_known_silent && self.network.link_to(from, target, &endpoint).is_none() {
                true => Err(UnreachableKind::Silence),
                false => self.send(from, target, &endpoint, &frame, activations.clone()),
            };
            match sent {
                Ok(()) => events.push(sent_event(frame, activations.len())),
                Err(UnreachableKind::Silence) if !is_known_silent => {
                    frames.push_front(WaitingFrame { endpoint: endpoint.clone(), frame, activations });
                    self.dial(from, target, endpoint, false, frames);
                    return events;
                }
                Err(kind) => events.push(unsent(endpoint, frame, activations.len(), kind)),
            }
        }
        events
    }

    /// A connection has ended: dials anew. Returns the events that are known at once.
    pub(super) fn route_ended(&mut self, from: ProcessId, target: Target, link: u64) -> Vec<RouteEvent> {
        let Some(endpoint) = self.network.leads(from, target, link) else { return Vec::new() };
        self.network.close(from, target);
        if let Target::Gateway(_) = target {
            return vec![RouteEvent::Broke { endpoint, failed: None }];
        }
        match self.connect(from, target, &endpoint) {
            Ok(_) => vec![RouteEvent::Broke { endpoint, failed: None }],
            Err(UnreachableKind::Silence) => {
                self.dial(from, target, endpoint, true, VecDeque::new());
                Vec::new()
            }
            Err(kind) => vec![RouteEvent::Gone(unreachable(&endpoint, kind))],
        }
    }

    /// A dial ends, unless the route was reset meanwhile.
    pub(super) fn dialled(&mut self, from: ProcessId, target: Target, number: u64) -> Vec<RouteEvent> {
        if self.network.dials.get(&(from, target)).is_none_or(|dial| dial.number != number) {
            return Vec::new();
        }
        let Some(Dial { endpoint, is_redial, mut waiting, .. }) = self.network.dials.remove(&(from, target)) else {
            return Vec::new();
        };
        let mut events = Vec::new();
        let answer = self.connect(from, target, &endpoint).map(drop);
        if answer == Err(UnreachableKind::Silence) {
            self.network.silent.insert((from, target), (endpoint.clone(), self.now));
        }
        match (is_redial, answer) {
            (true, Ok(())) => events.push(RouteEvent::Broke { endpoint, failed: None }),
            (true, Err(kind)) => events.push(RouteEvent::Gone(unreachable(&endpoint, kind))),
            (false, Ok(())) => {}
            (false, Err(kind)) => {
                if let Some(WaitingFrame { endpoint, frame, activations }) = waiting.pop_front() {
                    events.push(unsent(endpoint, frame, activations.len(), kind));
                }
            }
        }
        events.extend(self.route_on(from, target, waiting));
        events
    }

    fn dial(
        &mut self,
        from: ProcessId,
        target: Target,
        endpoint: String,
        is_redial: bool,
        waiting: VecDeque<WaitingFrame>,
    ) {
        self.network.dialled += 1;
        let number = self.network.dialled;
        self.network.dials.insert((from, target), Dial { number, endpoint, is_redial, waiting });
        self.schedule(micros(CONNECT_WAIT_MAX) as Moment, from, ProcessEvent::Dialled { target, number });
    }
}

fn sent_event(frame: Frame, bytes: usize) -> RouteEvent {
    RouteEvent::Sent { frame, bytes, waited: Duration::ZERO, round_trip: None }
}

fn unsent(endpoint: String, frame: Frame, bytes: usize, kind: UnreachableKind) -> RouteEvent {
    let found = unreachable(&endpoint, kind);
    let (waited, cause) = (Duration::ZERO, found.cause.clone());
    RouteEvent::Unsent { frame, endpoint, bytes, waited, cause, found: Some(found) }
}

/// A peer that frames cannot reach, as the real link reports it.
fn unreachable(endpoint: &str, kind: UnreachableKind) -> Unreachable {
    Unreachable { endpoint: endpoint.to_owned(), kind, cause: format!("{kind:?}, as simulated") }
}
