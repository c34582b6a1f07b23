//! The links between simulated processes: what a real link does to frames, and what a worse one would.
//!
//! A link keeps the order of its frames and loses none as long as it stands, as the real one does; what is on its way when
//! it breaks or is closed may be lost or still come, also after frames of the link that follows it. A sender learns of a
//! break soon, and of a peer that froze or is cut off when it has given no sign of life for too long. Beyond that, frames
//! may be lost without a sign, doubled and overtaken, if the seed says so.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use schema::frame::Frame;

use super::route::Dial;
use super::surroundings::{Event, Happening, MS, Moment, Party, SECOND, Surroundings, micros};
use crate::link::limits::{IN_FLIGHT_MESSAGES_MAX, PING_EVERY, SILENCE_MAX};
use crate::link::{Absence, Message, Unreachable};

/// Where a process keeps a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// To the stage after it; the head's: to the first.
    Downstream,
    /// To the gateway in a slot.
    Gateway(u32),
}

/// How often frames meet with what a real link does not do, in a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Malice {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) overtaken: u64,
}

struct Link {
    from: Party,
    endpoint: String,
    to: (Party, u32),
    is_open: bool,
    /// When the frame sent last comes.
    last: Moment,
    in_flight: usize,
}

/// A frame on its way.
pub(super) struct Parcel {
    link: u64,
    message: Message,
}

/// All links.
#[derive(Default)]
pub(super) struct Network {
    links: BTreeMap<u64, Link>,
    open: BTreeMap<(Party, Way), u64>,
    opened: u64,
    pub(super) malice: Malice,
    /// Directions that nothing passes, and until when.
    pub(super) cuts: BTreeMap<(Party, Party), Moment>,
    /// Processes that no other one can shake hands with.
    pub(super) barred: BTreeSet<Party>,
    /// Dials without an answer yet, and how many there were.
    pub(super) dials: BTreeMap<(Party, Way), Dial>,
    pub(super) dialled: u64,
    /// Endpoints at which a dial found silence last, and the moment.
    pub(super) silent: BTreeMap<(Party, Way), (String, Moment)>,
    /// What each process's links are called now.
    endpoints: BTreeMap<String, (Party, u32)>,
}

// === impl Network ===

impl Network {
    /// A process begins to listen; the endpoint is never used twice.
    pub(super) fn listen(&mut self, party: Party, incarnation: u32) -> String {
        let endpoint = format!("ipc:///simulated/{}/{incarnation}", party.0);
        self.endpoints.insert(endpoint.clone(), (party, incarnation));
        endpoint
    }

    /// The sender lets go of a link.
    pub(super) fn close(&mut self, from: Party, way: Way) {
        self.dials.remove(&(from, way));
        if let Some(link) = self.open.remove(&(from, way)).and_then(|id| self.links.get_mut(&id)) {
            link.is_open = false;
        }
        self.sweep();
    }

    /// One of the links that stand.
    fn any(&self, choice: u64) -> Option<u64> {
        let open: BTreeSet<_> = self.open.values().copied().collect();
        open.iter().nth(choice as usize % open.len().max(1)).copied()
    }

    /// Where a process's link leads, if it is still the one that it has.
    pub(super) fn leads(&self, from: Party, way: Way, link: u64) -> Option<String> {
        let is_current = self.open.get(&(from, way)) == Some(&link);
        self.links.get(&link).filter(|_| is_current).map(|link| link.endpoint.clone())
    }

    /// Forgets links that nobody uses and nothing is on.
    fn sweep(&mut self) {
        let open: BTreeSet<_> = self.open.values().copied().collect();
        self.links.retain(|id, link| link.in_flight > 0 || open.contains(id));
    }
}

impl Surroundings {
    fn is_cut(&self, from: Party, to: Party) -> Option<Moment> {
        self.network.cuts.get(&(from, to)).copied().filter(|until| *until > self.now)
    }

    /// True if a link leads to `endpoint` and stands.
    pub(super) fn has_link(&self, from: Party, way: Way, endpoint: &str) -> bool {
        let link = self.network.open.get(&(from, way)).and_then(|id| self.network.links.get(id));
        link.is_some_and(|link| link.is_open && link.endpoint == endpoint)
    }

    /// All links from and to a process end.
    pub(super) fn hang_up(&mut self, party: Party) {
        self.network.open.retain(|(from, _), _| *from != party);
        let touches = |link: &Link| link.from == party || link.to.0 == party;
        let ends: Vec<_> = self.network.links.iter().filter(|(_, link)| touches(link)).map(|(id, _)| *id).collect();
        ends.into_iter().for_each(|id| self.ends(id));
    }

    /// A link breaks.
    pub(super) fn breaks(&mut self, choice: u64) {
        if let Some(id) = self.network.any(choice) {
            self.ends(id);
        }
    }

    /// Nothing passes any more between the processes of some links, which is noticed if it goes on.
    pub(super) fn falls_silent(&mut self, is_affected: impl Fn(Party, Party) -> bool) {
        let links = self.network.links.iter();
        let affected = links.filter(|(_, link)| link.is_open && is_affected(link.from, link.to.0));
        for id in affected.map(|(id, _)| *id).collect::<Vec<_>>() {
            let delay = micros(SILENCE_MAX) + self.dice.within(0..micros(PING_EVERY));
            self.after(delay, Event::Missed(id));
        }
    }

    /// No sign of life has come over a link, unless it came in time.
    pub(super) fn missed(&mut self, id: u64) {
        let Some(link) = self.network.links.get(&id) else { return };
        let (from, to) = (link.from, link.to.0);
        let is_frozen = self.lives[from.0].is_frozen || self.lives[to.0].is_frozen;
        if is_frozen || self.is_cut(from, to).is_some() || self.is_cut(to, from).is_some() {
            self.tally.add("signs of life were missed", 1);
            self.ends(id);
        }
    }

    /// A link ends; its sender learns of that.
    fn ends(&mut self, id: u64) {
        let Some(link) = self.network.links.get_mut(&id).filter(|link| link.is_open) else { return };
        link.is_open = false;
        let ended = self.network.open.iter().find(|(_, open)| **open == id).map(|(ended, _)| *ended);
        if let Some((from, way)) = ended {
            let delay = self.dice.within(50..5 * MS);
            self.happens(delay, from, Happening::LinkEnded { way, link: id });
        }
    }

    /// Sends a frame, over a new link if the one at hand is broken or leads elsewhere; whether that went well.
    pub(super) fn send(
        &mut self,
        from: Party,
        way: Way,
        endpoint: &str,
        frame: &Frame,
        activations: Bytes,
    ) -> Result<(), Absence> {
        let open = self.network.open.get(&(from, way)).copied();
        let usable =
            open.filter(|id| self.network.links.get(id).is_some_and(|link| link.is_open && link.endpoint == endpoint));
        let id = match usable {
            Some(id) => id,
            None => self.connect(from, way, endpoint)?,
        };
        let decoded = Frame::decode(&frame.encode());
        self.law(decoded.as_ref() == Ok(frame), || format!("a frame is not what it was: {frame:?}"));
        if let Ok(frame) = decoded {
            self.transmit(id, Message { frame, activations });
        }
        Ok(())
    }

    /// Connects anew, to see whether anybody is there.
    pub(super) fn connect(&mut self, from: Party, way: Way, endpoint: &str) -> Result<u64, Absence> {
        self.network.close(from, way);
        let to = *self.network.endpoints.get(endpoint).ok_or(Absence::Refused)?;
        let is_cut = self.is_cut(from, to.0).is_some() || self.is_cut(to.0, from).is_some();
        let life = &self.lives[to.0.0];
        if !is_cut && (!life.is_alive || life.incarnation != to.1) {
            return Err(Absence::Refused);
        }
        if !is_cut && [from, to.0].iter().any(|party| self.network.barred.contains(party)) {
            return Err(Absence::Barred);
        }
        if life.is_frozen || is_cut {
            return Err(Absence::Silence);
        }
        self.network.opened += 1;
        let id = self.network.opened;
        let link = Link { from, endpoint: endpoint.to_owned(), to, is_open: true, last: self.now, in_flight: 0 };
        self.network.links.insert(id, link);
        self.network.open.insert((from, way), id);
        Ok(id)
    }

    fn transmit(&mut self, id: u64, message: Message) {
        let Malice { lost, doubled, overtaken } = self.network.malice;
        if self.dice.permille(lost) {
            self.tally.add("a frame was lost without a sign", 1);
            return self.note(|| format!("lost without a sign: {}", name(&message.frame)));
        }
        let delay = self.dice.within(50..2 * MS);
        let hurry = self.now + delay;
        let aside = self.dice.permille(overtaken).then(|| self.dice.within(MS..80 * MS));
        let again = self.dice.permille(doubled).then(|| self.dice.within(0..80 * MS));
        self.tally.add("a frame was overtaken", aside.is_some().into());
        self.tally.add("a frame was doubled", again.is_some().into());
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let mut arrival = hurry.max(link.last + 1);
        match aside {
            Some(aside) => arrival += aside,
            None => link.last = arrival,
        }
        link.in_flight += 1 + usize::from(again.is_some());
        let in_flight = link.in_flight;
        self.law(in_flight <= IN_FLIGHT_MESSAGES_MAX, || format!("{in_flight} frames are on one link"));
        if let Some(again) = again {
            self.at(arrival + again, Event::Arrives(Parcel { link: id, message: message.clone() }));
        }
        self.at(arrival, Event::Arrives(Parcel { link: id, message }));
    }

    /// A frame comes to the end of its link.
    pub(super) fn arrives(&mut self, parcel: Parcel) {
        let Some(link) = self.network.links.get(&parcel.link) else { return };
        let (from, to, is_open) = (link.from, link.to, link.is_open);
        if let Some(healed) = self.is_cut(from, to.0)
            && is_open
        {
            let silence_max = micros(SILENCE_MAX);
            if healed - self.now < silence_max {
                let delay = self.dice.within(0..SECOND / 4);
                let last = self.network.links.get(&parcel.link).map_or(0, |link| link.last);
                let moment = (healed + delay).max(last + 1);
                if let Some(link) = self.network.links.get_mut(&parcel.link) {
                    link.last = moment;
                }
                return self.at(moment, Event::Arrives(parcel));
            }
        }
        let lost = (!is_open && self.dice.permille(500)) || self.is_cut(from, to.0).is_some();
        let life = &self.lives[to.0.0];
        let is_there = life.is_alive && life.incarnation == to.1;
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
        self.note(|| format!("{} gets {}", who(to), name(&parcel.message.frame)));
        self.happens(0, to, Happening::Receives(parcel.message));
    }
}

/// A peer that frames cannot be brought to, as the real link tells of it.
pub(super) fn unreachable(endpoint: &str, absence: Absence) -> Unreachable {
    Unreachable { endpoint: endpoint.to_owned(), absence, cause: format!("{absence:?}, as simulated") }
}

/// A frame in a few words.
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

/// A process in the trace.
pub(super) fn who(party: Party) -> String {
    if party.is_gateway() { format!("g{}", party.0) } else { super::stage::name(party) }
}
