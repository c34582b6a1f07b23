//! Transport of frames over links between simulated processes. Links behave like real ones, or worse.
//!
//! A link keeps the order of its frames and loses none as long as it stands, as the real one does. Frames in flight
//! when it breaks or is closed may be lost or still arrive, even after frames of the next link. A sender learns of a
//! break soon, and of a peer that froze or is cut off after the heartbeat timeout. Beyond that, frames may be lost
//! silently, duplicated and overtaken, if the seed says so.

use bytes::Bytes;
use schema::frame::Frame;

use super::environment::Environment;
use super::event::{Event, ProcessEvent};
use super::network::{FrameFaults, Parcel, Target};
use super::process_id::ProcessId;
use super::time::{MS, Moment, SECOND, micros};
use crate::link::limits::{HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, IN_FLIGHT_MESSAGES_MAX};
use crate::link::{Message, UnreachableKind};

impl Environment {
    fn is_cut(&self, from: ProcessId, to: ProcessId) -> Option<Moment> {
        self.network.cuts.get(&(from, to)).copied().filter(|until| *until > self.now)
    }

    /// Ends all links from and to a process.
    pub(super) fn end_links(&mut self, process: ProcessId) {
        self.network.forget_routes(process);
        let ends = self.network.links_where(|link| link.from == process || link.to.process == process);
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
        for id in self.network.links_where(|link| link.is_open && is_affected(link.from, link.to.process)) {
            let delay = micros(HEARTBEAT_TIMEOUT) + self.rng.within(0..micros(HEARTBEAT_INTERVAL));
            self.after(delay, Event::Missed(id));
        }
    }

    /// The heartbeat timeout of a link: ends it, unless its processes can reach each other again.
    pub(super) fn missed(&mut self, id: u64) {
        let Some(link) = self.network.link(id) else { return };
        let (from, to) = (link.from, link.to.process);
        let is_frozen = self.states[from.0].is_frozen || self.states[to.0].is_frozen;
        if is_frozen || self.is_cut(from, to).is_some() || self.is_cut(to, from).is_some() {
            self.tally.add("heartbeats timed out", 1);
            self.ends(id);
        }
    }

    /// Ends a link. Its sender learns of that.
    fn ends(&mut self, id: u64) {
        if let Some((from, target)) = self.network.end(id) {
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
        let id = match self.network.link_to(from, target, endpoint) {
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
        let to = self.network.listener(endpoint).ok_or(UnreachableKind::Refused)?;
        let is_cut = self.is_cut(from, to.process).is_some() || self.is_cut(to.process, from).is_some();
        let state = &self.states[to.process.0];
        if !is_cut && (!state.is_alive || state.incarnation != to.incarnation) {
            return Err(UnreachableKind::Refused);
        }
        if !is_cut && [from, to.process].iter().any(|process| self.network.barred.contains(process)) {
            return Err(UnreachableKind::Barred);
        }
        if state.is_frozen || is_cut {
            return Err(UnreachableKind::Silence);
        }
        Ok(self.network.open(from, target, endpoint, to, self.now))
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
        let Some(link) = self.network.link_mut(id) else { return };
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
        let Some(link) = self.network.link(parcel.link) else { return };
        let (from, to, is_open) = (link.from, link.to, link.is_open);
        if let Some(healed) = self.is_cut(from, to.process)
            && is_open
        {
            let silence_max = micros(HEARTBEAT_TIMEOUT);
            if healed - self.now < silence_max {
                let delay = self.rng.within(0..SECOND / 4);
                let last = self.network.link(parcel.link).map_or(0, |link| link.last);
                let moment = (healed + delay).max(last + 1);
                if let Some(link) = self.network.link_mut(parcel.link) {
                    link.last = moment;
                }
                return self.at(moment, Event::Arrives(parcel));
            }
        }
        let lost = (!is_open && self.rng.permille(500)) || self.is_cut(from, to.process).is_some();
        let state = &self.states[to.process.0];
        let is_there = state.is_alive && state.incarnation == to.incarnation;
        if let Some(link) = self.network.link_mut(parcel.link) {
            link.in_flight -= 1;
            link.is_open &= is_there && !lost;
        }
        self.network.sweep();
        if lost || !is_there {
            self.tally.add("a frame was lost on a broken link", 1);
            return self.note(|| format!("lost on a broken link: {}", name(&parcel.message.frame)));
        }
        let to = to.process;
        self.note(|| format!("{to} gets {}", name(&parcel.message.frame)));
        self.schedule(0, to, ProcessEvent::Receives(parcel.message));
    }
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
