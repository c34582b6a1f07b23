//! The state of the links between simulated processes: the open ones and those with frames in flight, the dials, and
//! what is cut or barred. It does not know when a frame arrives, or who learns of a break: see `transport`.

use std::collections::{BTreeMap, BTreeSet};

use super::dial::Dial;
use super::process_id::ProcessId;
use super::time::Moment;
use crate::link::Message;

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

/// The process that listens at an endpoint. A process that starts anew is another incarnation with another endpoint.
#[derive(Clone, Copy)]
pub(super) struct Listener {
    pub(super) process: ProcessId,
    pub(super) incarnation: u32,
}

/// A link, which outlives its end while frames are in flight.
pub(super) struct Link {
    pub(super) from: ProcessId,
    pub(super) endpoint: String,
    pub(super) to: Listener,
    pub(super) is_open: bool,
    /// Arrival time of the last frame.
    pub(super) last: Moment,
    pub(super) in_flight: usize,
}

/// A frame in flight.
pub(super) struct Parcel {
    pub(super) link: u64,
    pub(super) message: Message,
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
    /// The listener of each endpoint.
    endpoints: BTreeMap<String, Listener>,
}

// === impl Network ===

impl Network {
    /// A process begins to listen. No endpoint is used twice.
    pub(super) fn listen(&mut self, process: ProcessId, incarnation: u32) -> String {
        let endpoint = format!("ipc:///simulated/{}/{incarnation}", process.0);
        self.endpoints.insert(endpoint.clone(), Listener { process, incarnation });
        endpoint
    }

    /// The listener of an endpoint.
    pub(super) fn listener(&self, endpoint: &str) -> Option<Listener> {
        self.endpoints.get(endpoint).copied()
    }

    /// Opens a process's link at `now`. Returns its number.
    pub(super) fn open(&mut self, from: ProcessId, target: Target, endpoint: &str, to: Listener, now: Moment) -> u64 {
        self.opened += 1;
        let link = Link { from, endpoint: endpoint.to_owned(), to, is_open: true, last: now, in_flight: 0 };
        self.links.insert(self.opened, link);
        self.open.insert((from, target), self.opened);
        self.opened
    }

    /// The sender closes a link.
    pub(super) fn close(&mut self, from: ProcessId, target: Target) {
        self.dials.remove(&(from, target));
        if let Some(link) = self.open.remove(&(from, target)).and_then(|id| self.links.get_mut(&id)) {
            link.is_open = false;
        }
        self.sweep();
    }

    /// Ends a link that is open. Returns the process whose current link it was, and the purpose.
    pub(super) fn end(&mut self, id: u64) -> Option<(ProcessId, Target)> {
        let link = self.links.get_mut(&id).filter(|link| link.is_open)?;
        link.is_open = false;
        self.open.iter().find(|(_, open)| **open == id).map(|(ended, _)| *ended)
    }

    /// Forgets a process's current links, its dials, and the endpoints that it found silent.
    pub(super) fn forget_routes(&mut self, process: ProcessId) {
        self.open.retain(|(from, _), _| *from != process);
        self.dials.retain(|(from, _), _| *from != process);
        self.silent.retain(|(from, _), _| *from != process);
    }

    /// Forgets links that no process uses and that have no frames in flight.
    pub(super) fn sweep(&mut self) {
        let open: BTreeSet<_> = self.open.values().copied().collect();
        self.links.retain(|id, link| link.in_flight > 0 || open.contains(id));
    }

    pub(super) fn link(&self, id: u64) -> Option<&Link> {
        self.links.get(&id)
    }

    pub(super) fn link_mut(&mut self, id: u64) -> Option<&mut Link> {
        self.links.get_mut(&id)
    }

    /// The links that fulfil `condition`, in the order in which they were opened.
    pub(super) fn links_where(&self, condition: impl Fn(&Link) -> bool) -> Vec<u64> {
        self.links.iter().filter(|(_, link)| condition(link)).map(|(id, _)| *id).collect()
    }

    /// A process's current link, if it is open and leads to `endpoint`.
    pub(super) fn link_to(&self, from: ProcessId, target: Target, endpoint: &str) -> Option<u64> {
        let id = self.open.get(&(from, target)).copied();
        id.filter(|id| self.links.get(id).is_some_and(|link| link.is_open && link.endpoint == endpoint))
    }

    /// One of the open links.
    pub(super) fn any(&self, choice: u64) -> Option<u64> {
        let open: BTreeSet<_> = self.open.values().copied().collect();
        open.iter().nth(choice as usize % open.len().max(1)).copied()
    }

    /// The endpoint of a process's link, if the link is still its current one.
    pub(super) fn leads(&self, from: ProcessId, target: Target, link: u64) -> Option<String> {
        let is_current = self.open.get(&(from, target)) == Some(&link);
        self.links.get(&link).filter(|_| is_current).map(|link| link.endpoint.clone())
    }
}
