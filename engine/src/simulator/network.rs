//! The links between simulated processes. They behave like real links, or worse.
//!
//! A link keeps the order of its frames and loses none as long as it stands, as the real one does. Frames in flight
//! when it breaks or is closed may be lost or still arrive, even after frames of the next link. A sender learns of a
//! break soon, and of a peer that froze or is cut off after the heartbeat timeout. Beyond that, frames may be lost
//! silently, duplicated and overtaken, if the seed says so.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use schema::frame::Frame;

use super::environment::{Environment, Event, MS, Moment, ProcessEvent, ProcessId, SECOND, micros};
use super::route::Dial;
use crate::link::limits::{HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, IN_FLIGHT_MESSAGES_MAX};
use crate::link::{Message, Unreachable, UnreachableKind};

/// The purpose of a process's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// To the next stage. The gateway's link goes to the first stage.
    Downstream,
    /// To the gateway in a slot.
    Gateway(u32),
}

/// Probabilities of faults that a real link does not have, per thousand frames.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FrameFaults {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) overtaken: u64,
}

struct Link {
    from: ProcessId,
    endpoint: String,
    to: (ProcessId, u32),
    is_open: bool,
    /// Arrival time of the last frame.
    last: Moment,
    in_flight: usize,
}

/// A frame in flight.
pub(super) struct Parcel {
    link: u64,
    message: Message,
}

/// All links.
#[derive(Default)]
pub(super) struct Network {
    links: BTreeMap<u64, Link>,
    open: BTreeMap<(ProcessId, Target), u64>,
    opened: u64,
    pub(super) frame_faults: FrameFaults,
    /// Directions that are cut, each with the time at which it heals.
    pub(super) cuts: BTreeMap<(ProcessId, ProcessId), Moment>,
    /// Processes with which no other one completes a handshake.
    pub(super) barred: BTreeSet<ProcessId>,
    /// Dials without an answer yet, and the number of dials so far.
    pub(super) dials: BTreeMap<(ProcessId, Target), Dial>,
    pub(super) dialled: u64,
    /// Endpoints whose last dial timed out, with the time.
    pub(super) silent: BTreeMap<(ProcessId, Target), (String, Moment)>,
    /// The process and incarnation of each endpoint.
    endpoints: BTreeMap<String, (ProcessId, u32)>,
}

// === impl Network ===

impl Network {
    /// A process begins to listen. No endpoint is used twice.
    pub(super) fn listen(&mut self, process: ProcessId, incarnation: u32) -> String {
        let endpoint = format!("ipc:///simulated/{}/{incarnation}", process.0);
        self.endpoints.insert(endpoint.clone(), (process, incarnation));
        endpoint
    }

    /// The sender closes a link.
    pub(super) fn close(&mut self, from: ProcessId, target: Target) {
        self.dials.remove(&(from, target));
        if let Some(link) = self.open.remove(&(from, target)).and_then(|id| self.links.get_mut(&id)) {
            link.is_open = false;
        }
        self.sweep();
    }

    /// One of the open links.
    fn any(&self, choice: u64) -> Option<u64> {
        let open: BTreeSet<_> = self.open.values().copied().collect();
        open.iter().nth(choice as usize % open.len().max(1)).copied()
    }

    /// The endpoint of a process's link, if the link is still its current one.
    pub(super) fn leads(&self, from: ProcessId, target: Target, link: u64) -> Option<String> {
        let is_current = self.open.get(&(from, target)) == Some(&link);
        self.links.get(&link).filter(|_| is_current).map(|link| link.endpoint.clone())
    }

    /// Forgets links that no process uses and that have no frames in flight.
    fn sweep(&mut self) {
        let open: BTreeSet<_> = self.open.values().copied().collect();
        self.links.retain(|id, link| link.in_flight > 0 || open.contains(id));
    }
}

impl Environment {
    fn is_cut(&self, from: ProcessId, to: ProcessId) -> Option<Moment> {
        self.network.cuts.get(&(from, to)).copied().filter(|until| *until > self.now)
    }

    /// True if there is an open link to `endpoint`.
    pub(super) fn has_link(&self, from: ProcessId, target: Target, endpoint: &str) -> bool {
        let link = self.network.open.get(&(from, target)).and_then(|id| self.network.links.get(id));
        link.is_some_and(|link| link.is_open && link.endpoint == endpoint)
    }

    /// Ends all links from and to a process.
    pub(super) fn end_links(&mut self, process: ProcessId) {
        self.network.open.retain(|(from, _), _| *from != process);
        self.network.dials.retain(|(from, _), _| *from != process);
        self.network.silent.retain(|(from, _), _| *from != process);
        let touches = |link: &Link| link.from == process || link.to.0 == process;
        let ends: Vec<_> = self.network.links.iter().filter(|(_, link)| touches(link)).map(|(id, _)| *id).collect();
        ends.into_iter().for_each(|id| self.ends(id));
    }

    /// Breaks a link.
    pub(super) fn breaks(&mut self, choice: u64) {
        if let Some(id) = self.network.any(choice) {
            self.ends(id);
        }
    }

    /// Schedules the heartbeat timeouts of links between processes that cannot reach each other any more.
    pub(super) fn falls_silent(&mut self, is_affected: impl Fn(ProcessId, ProcessId) -> bool) {
        let links = self.network.links.iter();
        let affected = links.filter(|(_, link)| link.is_open && is_affected(link.from, link.to.0));
        for id in affected.map(|(id, _)| *id).collect::<Vec<_>>() {
            let delay = micros(HEARTBEAT_TIMEOUT) + self.rng.within(0..micros(HEARTBEAT_INTERVAL));
            self.after(delay, Event::Missed(id));
        }
    }

    /// The heartbeat timeout of a link: ends it, unless its processes can reach each other again.
    pub(super) fn missed(&mut self, id: u64) {
        let Some(link) = self.network.links.get(&id) else { return };
        let (from, to) = (link.from, link.to.0);
        let is_frozen = self.states[from.0].is_frozen || self.states[to.0].is_frozen;
        if is_frozen || self.is_cut(from, to).is_some() || self.is_cut(to, from).is_some() {
            self.tally.add("heartbeats timed out", 1);
            self.ends(id);
        }
    }

    /// Ends a link. Its sender learns of that.
    fn ends(&mut self, id: u64) {
        let Some(link) = self.network.links.get_mut(&id).filter(|link| link.is_open) else { return };
        link.is_open = false;
        let ended = self.network.open.iter().find(|(_, open)| **open == id).map(|(ended, _)| *ended);
        if let Some((from, target)) = ended {
            let delay = self.rng.within(50..5 * MS);
            self.schedule(delay, from, ProcessEvent::LinkEnded { target, link: id });
        }
    }

    /// Sends a frame, over a new link if the current one is broken or has another endpoint.
    pub(super) fn send(
        &mut self,
        from: ProcessId,
        target: Target,
        endpoint: &str,
        frame: &Frame,
        activations: Bytes,
    ) -> Result<(), UnreachableKind> {
        let open = self.network.open.get(&(from, target)).copied();
        let usable =
            open.filter(|id| self.network.links.get(id).is_some_and(|link| link.is_open && link.endpoint == endpoint));
        let id = match usable {
            Some(id) => id,
            None => self.connect(from, target, endpoint)?,
        };
        let decoded = Frame::decode(&frame.encode());
        self.check(decoded.as_ref() == Ok(frame), || format!("a frame is not what it was: {frame:?}"));
        if let Ok(frame) = decoded {
            self.transmit(id, Message { frame, activations });
        }
        Ok(())
    }

    /// Connects anew.
    pub(super) fn connect(&mut self, from: ProcessId, target: Target, endpoint: &str) -> Result<u64, UnreachableKind> {
        self.network.close(from, target);
        let to = *self.network.endpoints.get(endpoint).ok_or(UnreachableKind::Refused)?;
        let is_cut = self.is_cut(from, to.0).is_some() || self.is_cut(to.0, from).is_some();
        let state = &self.states[to.0.0];
        if !is_cut && (!state.is_alive || state.incarnation != to.1) {
            return Err(UnreachableKind::Refused);
        }
        if !is_cut && [from, to.0].iter().any(|process| self.network.barred.contains(process)) {
            return Err(UnreachableKind::Barred);
        }
        if state.is_frozen || is_cut {
            return Err(UnreachableKind::Silence);
        }
        self.network.opened += 1;
        let id = self.network.opened;
        let link = Link { from, endpoint: endpoint.to_owned(), to, is_open: true, last: self.now, in_flight: 0 };
        self.network.links.insert(id, link);
        self.network.open.insert((from, target), id);
        Ok(id)
    }

    fn transmit(&mut self, id: u64, message: Message) {
        let FrameFaults { lost, doubled, overtaken } = self.network.frame_faults;
        if self.rng.permille(lost) {
            self.tally.add("a frame was lost silently", 1);
            return self.note(|| format!("lost silently: {}", name(&message.frame)));
        }
        let delay = self.rng.within(50..2 * MS);
        let hurry = self.now + delay;
        let detour = self.rng.permille(overtaken).then(|| self.rng.within(MS..80 * MS));
        let again = self.rng.permille(doubled).then(|| self.rng.within(0..80 * MS));
        self.tally.add("a frame was overtaken", detour.is_some().into());
        self.tally.add("a frame was doubled", again.is_some().into());
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let mut arrival = hurry.max(link.last + 1);
        match detour {
            Some(detour) => arrival += detour,
            None => link.last = arrival,
        }
        link.in_flight += 1 + usize::from(again.is_some());
        let in_flight = link.in_flight;
        self.check(in_flight <= IN_FLIGHT_MESSAGES_MAX, || format!("{in_flight} frames are on one link"));
        if let Some(again) = again {
            self.at(arrival + again, Event::Arrives(Parcel { link: id, message: message.clone() }));
        }
        self.at(arrival, Event::Arrives(Parcel { link: id, message }));
    }

    /// A frame arrives at the end of its link.
    pub(super) fn arrives(&mut self, parcel: Parcel) {
        let Some(link) = self.network.links.get(&parcel.link) else { return };
        let (from, to, is_open) = (link.from, link.to, link.is_open);
        if let Some(healed) = self.is_cut(from, to.0)
            && is_open
        {
            let silence_max = micros(HEARTBEAT_TIMEOUT);
            if healed - self.now < silence_max {
                let delay = self.rng.within(0..SECOND / 4);
                let last = self.network.links.get(&parcel.link).map_or(0, |link| link.last);
                let moment = (healed + delay).max(last + 1);
                if let Some(link) = self.network.links.get_mut(&parcel.link) {
                    link.last = moment;
                }
                return self.at(moment, Event::Arrives(parcel));
            }
        }
        let lost = (!is_open && self.rng.permille(500)) || self.is_cut(from, to.0).is_some();
        let state = &self.states[to.0.0];
        let is_there = state.is_alive && state.incarnation == to.1;
        if let Some(link) = self.network.links.get_mut(&parcel.link) {
            link.in_flight -= 1;
            link.is_open &= is_there && !lost;
        }
        self.network.sweep();
        if lost || !is_there {
            self.tally.add("a frame was lost on a broken link", 1);
            return self.note(|| format!("lost on a broken link: {}", name(&parcel.message.frame)));
        }
        let to = to.0;
        self.note(|| format!("{} gets {}", label(to), name(&parcel.message.frame)));
        self.schedule(0, to, ProcessEvent::Receives(parcel.message));
    }
}

/// A peer that frames cannot reach, as the real link reports it.
pub(super) fn unreachable(endpoint: &str, kind: UnreachableKind) -> Unreachable {
    Unreachable { endpoint: endpoint.to_owned(), kind, cause: format!("{kind:?}, as simulated") }
}

/// A frame in a few words, for the trace.
pub(super) fn name(frame: &Frame) -> String {
    match frame {
        Frame::Hop(hop) => {
            format!("hop g{} e{} step {} slot {} rows {}", hop.generation, hop.epoch, hop.step, hop.slot, hop.rows)
        }
        Frame::Tokens(tokens) => {
            let chosen = tokens.chosen.len();
            format!("{chosen} tokens g{} e{} step {}", tokens.generation, tokens.epoch, tokens.step)
        }
        Frame::Refusal(refusal) => {
            let (epoch, step, reason) = (refusal.epoch, refusal.step, &refusal.reason);
            format!("refusal by slot {} e{epoch} step {step}: {reason}", refusal.slot)
        }
    }
}

/// The name of a process in the trace.
pub(super) fn label(process: ProcessId) -> String {
    if process.is_gateway() { format!("g{}", process.0) } else { super::stage::name(process) }
}
