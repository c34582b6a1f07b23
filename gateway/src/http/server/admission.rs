//! Connection admission: chooses the connection that is closed for a new one, or rejects the new one.
//!
//! Pure: a table of addresses and phases. Callers pass in the time. The table knows no sockets: callers close the
//! connections that it evicts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

/// The phase of a connection's request. In all phases but the last, the connection waits for its client. Waiting
/// connections are evicted in the order of their phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The head of its first request is not complete.
    Opening,
    /// Its answer is sent, and no head of a next request is complete.
    Idle,
    /// The head of a request is complete, its body is not.
    Receiving,
    /// A request is being answered.
    Busy,
}

/// Most connections at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Connections of all addresses together.
    pub(crate) connections_max: usize,
    /// Connections of one address.
    pub(crate) per_address_max: usize,
    /// Connections of one address that wait for their client.
    pub(crate) waiting_per_address_max: usize,
}

/// A connection's number. Later connections have larger numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(u64);

/// The open connections, each with a handle `T`. Dropping the handle closes the connection.
#[derive(Debug)]
pub(crate) struct Admission<T> {
    bounds: Bounds,
    entries: BTreeMap<ConnectionId, Entry<T>>,
    next_id: u64,
}

#[derive(Debug)]
struct Entry<T> {
    address: IpAddr,
    phase: Phase,
    /// Time at which it entered the phase.
    since: Instant,
    handle: T,
}

// === impl Admission ===

impl<T> Admission<T> {
    /// A table without connections.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: BTreeMap::new(), next_id: 0 }
    }

    /// Admits a connection from `address`. Returns its number, and the handle of the connection that was evicted for
    /// it, if any. `None` rejects it, because every connection that it could replace is busy.
    pub(crate) fn admit(&mut self, address: IpAddr, now: Instant, handle: T) -> Option<(ConnectionId, Option<T>)> {
        let address = address.to_canonical();
        let evicted = match self.eviction_scope(address) {
            None => None,
            Some(scope) => Some(self.evict(|entry| scope.is_none_or(|address| entry.address == address))?),
        };
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        self.entries.insert(id, Entry { address, phase: Phase::Opening, since: now, handle });
        Some((id, evicted))
    }

    /// Evicts the waiting connection that is first by phase, and in that phase has waited longest, of any address.
    /// `None` when all are busy.
    pub(crate) fn evict_any(&mut self) -> Option<T> {
        self.evict(|_| true)
    }

    /// Records that `id` is in `phase` from `now` on. Does nothing if `id` was evicted.
    pub(crate) fn set_phase(&mut self, id: ConnectionId, phase: Phase, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.phase != phase
        {
            (entry.phase, entry.since) = (phase, now);
        }
    }

    /// Removes `id` from the table.
    pub(crate) fn remove(&mut self, id: ConnectionId) {
        self.entries.remove(&id);
    }

    /// The connections that a new one from `address` could replace: `None` when there is room for it, `Some(None)` for
    /// all of them, else those of its own address.
    fn eviction_scope(&self, address: IpAddr) -> Option<Option<IpAddr>> {
        let own = || self.entries.values().filter(|entry| entry.address == address);
        let waiting = own().filter(|entry| entry.phase != Phase::Busy).count();
        if waiting >= self.bounds.waiting_per_address_max || own().count() >= self.bounds.per_address_max {
            Some(Some(address))
        } else {
            (self.entries.len() >= self.bounds.connections_max).then_some(None)
        }
    }

    fn evict(&mut self, among: impl Fn(&Entry<T>) -> bool) -> Option<T> {
        let waiting = self.entries.iter().filter(|(_, entry)| entry.phase != Phase::Busy && among(entry));
        let (&id, _) = waiting.min_by_key(|(id, entry)| (entry.phase, entry.since, **id))?;
        self.entries.remove(&id).map(|entry| entry.handle)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BOUNDS: Bounds = Bounds { connections_max: 4, per_address_max: 3, waiting_per_address_max: 2 };

    /// A table, its clock in seconds, and connections named by letters.
    struct Table {
        admission: Admission<char>,
        ids: BTreeMap<char, ConnectionId>,
        start: Instant,
    }

    impl Table {
        fn new(bounds: Bounds) -> Self {
            Self { admission: Admission::new(bounds), ids: BTreeMap::new(), start: Instant::now() }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        /// `Ok` with the evicted connection, `Err` when the new one is rejected.
        fn admit(&mut self, name: char, address: u8, second: u64) -> Result<Option<char>, ()> {
            let now = self.at(second);
            let (id, evicted) = self.admission.admit([10, 0, 0, address].into(), now, name).ok_or(())?;
            self.ids.insert(name, id);
            Ok(evicted)
        }

        fn set_phase(&mut self, name: char, phase: Phase, second: u64) {
            let now = self.at(second);
            self.admission.set_phase(self.ids[&name], phase, now);
        }
    }

    #[test]
    fn at_the_cap_half_open_connections_are_evicted_before_idle_ones() {
        let mut table = Table::new(BOUNDS);
        for (name, address) in [('a', 1), ('b', 2), ('c', 3), ('d', 4)] {
            assert_eq!(table.admit(name, address, 0), Ok(None));
        }
        table.set_phase('a', Phase::Idle, 1);
        table.set_phase('b', Phase::Receiving, 1);
        assert_eq!(table.admit('e', 5, 9), Ok(Some('c')));
        table.set_phase('d', Phase::Busy, 9);
        table.set_phase('e', Phase::Busy, 9);
        assert_eq!(table.admit('f', 6, 10), Ok(Some('a')), "an idle one goes before one that sends a body");
        table.set_phase('f', Phase::Busy, 10);
        assert_eq!(table.admit('g', 7, 11), Ok(Some('b')));
    }

    #[test]
    fn of_two_idle_connections_the_one_idle_for_longer_is_evicted() {
        let mut table = Table::new(BOUNDS);
        for (name, address) in [('a', 1), ('b', 2), ('c', 3), ('d', 4)] {
            table.admit(name, address, 0).unwrap();
            table.set_phase(name, Phase::Busy, 1);
        }
        table.set_phase('c', Phase::Idle, 5);
        table.set_phase('a', Phase::Idle, 6);
        table.set_phase('c', Phase::Idle, 7);
        assert_eq!(table.admit('e', 5, 8), Ok(Some('c')), "a second report of idle does not restart the idle time");
    }

    #[test]
    fn a_busy_connection_is_never_evicted_and_a_new_one_is_rejected_instead() {
        let mut table = Table::new(BOUNDS);
        for (name, address) in [('a', 1), ('b', 2), ('c', 3), ('d', 4)] {
            table.admit(name, address, 0).unwrap();
            table.set_phase(name, Phase::Busy, 0);
        }
        assert_eq!(table.admit('e', 5, 100), Err(()));
        assert_eq!(table.admission.evict_any(), None);
        table.admission.remove(table.ids[&'b']);
        assert_eq!(table.admit('e', 5, 100), Ok(None));
    }

    #[test]
    fn an_address_over_its_bound_loses_its_own_longest_waiting_connection() {
        let mut table = Table::new(Bounds { connections_max: 100, ..BOUNDS });
        table.admit('x', 9, 0).unwrap();
        assert_eq!(table.admit('a', 1, 1), Ok(None));
        assert_eq!(table.admit('b', 1, 2), Ok(None));
        assert_eq!(table.admit('c', 1, 3), Ok(Some('a')));
        table.set_phase('b', Phase::Busy, 4);
        assert_eq!(table.admit('d', 1, 5), Ok(None), "busy ones do not wait");
        assert_eq!(table.admit('e', 1, 6), Ok(Some('c')));
        table.set_phase('d', Phase::Busy, 7);
        table.set_phase('e', Phase::Busy, 7);
        assert_eq!(table.admit('f', 1, 8), Err(()), "one address may have three");
        assert_eq!(table.admit('y', 9, 9), Ok(None));
    }

    #[test]
    fn an_ipv4_address_counts_the_same_when_it_comes_over_ipv6() {
        let mut admission = Admission::new(BOUNDS);
        let now = Instant::now();
        for (name, address) in [('a', "10.0.0.1"), ('b', "::ffff:10.0.0.1")] {
            assert!(admission.admit(address.parse().unwrap(), now, name).is_some());
        }
        let (_, evicted) = admission.admit("10.0.0.1".parse().unwrap(), now, 'c').unwrap();
        assert_eq!(evicted, Some('a'));
    }

    #[test]
    fn later_reports_of_an_evicted_connection_have_no_effect() {
        let mut table = Table::new(BOUNDS);
        for (name, second) in [('a', 0), ('b', 1), ('c', 2)] {
            table.admit(name, 1, second).unwrap();
        }
        table.set_phase('a', Phase::Busy, 3);
        table.admission.remove(table.ids[&'a']);
        assert_eq!(table.admit('d', 1, 4), Ok(Some('b')));
    }
}
